"""Image preprocessing for detectors, by PIL: the centre square resized, or a centre patch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

# PIL and not torch: its filters antialias, and published scores are of images that it resized.
Preprocessing = Callable[[Image.Image], Image.Image]
"""An RGB image of any size to the RGB image that a detector gets."""


@dataclass(frozen=True)
class Square:
    """The centre square, resized to `size` pixels a side and rounded to uint8.

    `resize` names a filter of PIL's: "lanczos" and "bicubic" antialias.

    >>> Square(size=8)(Image.new("RGB", (30, 20))).size
    (8, 8)
    """

    size: int
    resize: str = "lanczos"

    def __call__(self, image: Image.Image) -> Image.Image:
        """The square of an RGB image; one that has this size already is returned as it is."""
        image, size = _centre(image, min(image.size)), (self.size, self.size)
        return image if image.size == size else image.resize(size, Resampling[self.resize.upper()])


@dataclass(frozen=True)
class Patch:
    """The centre `size` pixels a side, not resized: "patch FID" sees detail.

    An image that is smaller on a side stays as it is.
    """

    size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """The patch of an RGB image."""
        return image if min(image.size) < self.size else _centre(image, self.size)


def picture(pixels: Tensor) -> Image.Image:
    """An RGB image of uint8 [1 or 3, H, W]."""
    # PIL wants [H, W, 3]; a grey image gets three equal channels.
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())


def pixels(image: Image.Image) -> Tensor:
    """Float32 [3, H, W] in 0..255 of an RGB image."""
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)


def scaled(image: Image.Image, size: int) -> Tensor:
    """Float32 [3, size, size] in 0..255 of an RGB image: bicubic, antialiased, not rounded.

    What clean-fid feeds Inception in its mode "clean" (Parmar et al. 2022, arXiv:2104.11222).
    """
    # Channel by channel as float images: PIL would round an RGB image to uint8.
    planes = [Image.fromarray(plane.numpy()) for plane in pixels(image).contiguous()]
    found = [np.array(plane.resize((size, size), Resampling.BICUBIC)) for plane in planes]
    # Bicubic overshoots at edges.
    return torch.from_numpy(np.stack(found)).clamp(0, 255)


def _centre(image: Image.Image, side: int) -> Image.Image:
    # Of an odd margin the smaller half lies at the left and at the top.
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
