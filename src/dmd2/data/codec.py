"""Codec: the interface of an autoencoder (VAE) as data of latents uses it.

This package implements none, since data knows no networks; the configuration brings one.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Codec(Protocol):
    """Images float32 [B, 3, H, W] in [-1, 1] to latents [B, *shape] and back."""

    shape: tuple[int, ...]

    def shape_at(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of the latents of an image of height and width `size` in pixels; ValueError where
        there are none.
        """
        ...

    def require(self) -> None:
        """Raise FileNotFoundError where its weights are not there, without loading them."""
        ...

    def identity(self) -> dict[str, Any]:
        """What latents must have in common to be mixed, as JSON values: weights, scale, size."""
        ...

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Latents of images: mean + std * noise of the posterior, noise [B, *shape] ~ N(0, I)."""
        # The caller draws the noise, so that it can be a function of the seed and the row.
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        ...

    def offload(self) -> None:
        """Back to the host; the next call moves it to the device of what it is given."""
        ...
