"""What a detector is shown of an image, as PIL makes it: its middle square scaled, or a patch from
the middle.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

View = Callable[[Image.Image], Image.Image]
"""An RGB image of any size to what is seen of it."""


@dataclass(frozen=True)
class Square:
    """The middle square, scaled to `size` pixels a side by a filter of PIL, which is antialiased,
    and rounded.
    """

    size: int
    resize: str = "lanczos"

    def __call__(self, image: Image.Image) -> Image.Image:
        image, size = _middle(image, min(image.size)), (self.size, self.size)
        return image if image.size == size else image.resize(size, Resampling[self.resize.upper()])


@dataclass(frozen=True)
class Patch:
    """The middle `size` pixels a side as they are; an image that is smaller on a side stays
    whole.
    """

    size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if min(image.size) < self.size else _middle(image, self.size)


def picture(pixels: Tensor) -> Image.Image:
    """An RGB image of uint8 [1 or 3, H, W]."""
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())


def pixels(image: Image.Image) -> Tensor:
    """Float32 [3, H, W] in 0..255 of an RGB image."""
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)


def scaled(image: Image.Image, size: int) -> Tensor:
    """Float32 [3, size, size] in 0..255 of an RGB image: bicubic, antialiased, and not rounded on
    the way.

    What clean-fid feeds Inception in its mode "clean" (Parmar et al. 2022, arXiv:2104.11222).
    """
    planes = [Image.fromarray(plane.numpy()) for plane in pixels(image).contiguous()]
    found = [np.array(plane.resize((size, size), Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(found)).clamp(0, 255)


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
