"""Image encoders: decoded images are stored as uint8 pixels, or as latents of an autoencoder."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from dmd2.data import pixels
from dmd2.data.codec import Codec
from dmd2.data.preparation.decode import Decoder
from dmd2.randomness import normal_rows


class ImageEncoder(Protocol):
    """From decoded pixels to the rows of an array [N, *shape] of a dtype."""

    dtype: type
    shape: tuple[int, ...]

    def about(self) -> dict[str, Any]:
        """What the stored values depend on besides the decoder, as JSON values of the manifest."""
        ...

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """What is stored at `rows` for pixels uint8 [B, C, H, W]: [B, *shape]."""
        ...


class PixelEncoder:
    """Stores the pixels themselves, uint8 [C, H, W]."""

    dtype: type = np.uint8

    def __init__(self, decoder: Decoder) -> None:
        self.shape: tuple[int, ...] = (decoder.channels, *decoder.size)

    def about(self) -> dict[str, Any]:
        """Nothing: pixels depend on the decoder alone."""
        return {}

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """The images as they are."""
        return images


class LatentEncoder:
    """Stores float16 latents: one draw from the posterior of each image, by noise of its row.

    codec  The autoencoder, which runs on this process's GPU if there is one.
    size   Height and width of the images in pixels.

    Raises ValueError where images of this size have no latents.
    """

    dtype: type = np.float16  # scaled latents are about 1 in size, far inside its range

    def __init__(self, codec: Codec, size: Sequence[int]) -> None:
        self.codec, self.shape = codec, codec.shape_at(size)
        # Processes of torchrun share the GPUs of a machine; no process group tells them apart here.
        own = int(os.environ.get("LOCAL_RANK", 0)) % max(torch.cuda.device_count(), 1)
        self.device = (
            torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
        )

    def about(self) -> dict[str, Any]:
        """The autoencoder, so that a run with another one can refuse the latents."""
        return {"autoencoder": self.codec.identity()}

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """Latents [B, *shape] of pixels uint8 [B, 3, H, W]."""
        # By row and drawn on the CPU: the same latents however rows are divided among processes.
        noise = normal_rows(rows, self.shape, 0, "latents")
        x = pixels.to_model(torch.from_numpy(images).to(self.device))
        return self.codec.encode(x, noise.to(self.device)).half().cpu().numpy()
