"""What data of latents asks of an autoencoder; this package knows none itself, a configuration brings it."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dmd2.data import pixels
from dmd2.randomness import normal_rows


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


class Encoded:
    """Float16 latents of images, to be kept: a draw from each one's posterior, which depends on its row alone."""

    dtype: type = np.float16

    def __init__(self, codec: Codec) -> None:
        self.codec, self.shape = codec, codec.shape
        own = int(os.environ.get("LOCAL_RANK", 0)) % max(torch.cuda.device_count(), 1)
        self.device = torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")

    def about(self) -> dict[str, Any]:
        return {"autoencoder": self.codec.identity()}

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        noise = normal_rows(rows, self.shape, 0, "latents")
        x = pixels.to_model(torch.from_numpy(images).to(self.device))
        return self.codec.encode(x, noise.to(self.device)).half().cpu().numpy()
