"""What data of latents asks of an autoencoder; this package knows none itself, a configuration
brings it.
"""

from typing import Any, Protocol

from torch import Tensor


class Codec(Protocol):
    """`shape` is that of one sample's latents; images are [B, 3, H, W] in [-1, 1]."""

    shape: tuple[int, ...]

    def require(self) -> None:
        """Raise FileNotFoundError where its files are not there."""
        ...

    def identity(self) -> dict[str, Any]:
        """What latents must share to be of one kind."""
        ...

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Latents [B, ...] of images: a draw from the posterior by N(0, I) `noise` [B, ...]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        ...
