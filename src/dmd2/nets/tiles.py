"""Decoding latents in overlapping tiles: the memory of a tile's activations, not of an image's."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

OVERLAP = 0.25
"""Least part of a tile that it shares with the next one."""
LEAST_WEIGHT = 1e-6
"""Of pixels at a tile's border: what the image's own border is divided by, and nothing beside 1."""


def decoded_in_tiles(
    decode: Callable[[Tensor], Tensor], z: Tensor, tile: int, factor: int
) -> Tensor:
    """Images float32 [B, 3, H, W] of latents z [B, C, h, w], by `decode` of square tiles.

    Of the overlap of two tiles the outer quarters are each the tile's whose border is farther, and
    between them one passes linearly into the other. So it is what `decode` makes of all of z where
    no pixel reads latents farther away than a quarter of the overlap; norms and attention over the
    whole image make it differ.

    tile    Height and width of a tile in latent pixels; smaller latents are one tile.
    factor  Image pixels per latent pixel, along one side.
    """
    sizes = [min(tile, size) for size in z.shape[2:]]
    height, width = (size * factor for size in z.shape[2:])
    total = z.new_zeros(len(z), 3, height, width, dtype=torch.float32)
    weights = total.new_zeros(height, width)
    rows, columns = (ramp(size * factor).to(total) for size in sizes)
    weight = rows[:, None] * columns
    for i in starts(z.shape[2], sizes[0]):
        for j in starts(z.shape[3], sizes[1]):
            image = decode(z[:, :, i : i + sizes[0], j : j + sizes[1]])
            down = slice(i * factor, (i + sizes[0]) * factor)
            right = slice(j * factor, (j + sizes[1]) * factor)
            total[:, :, down, right] += weight * image
            weights[down, right] += weight
    return total / weights


def starts(size: int, tile: int) -> list[int]:
    """Where tiles begin, evenly spaced, the last at the end.

    >>> starts(128, 64), starts(64, 64)
    ([0, 32, 64], [0])
    """
    num = ceil((size - tile) / (tile * (1 - OVERLAP)))
    return [round(i * (size - tile) / num) for i in range(num + 1)] if num else [0]


def ramp(size: int) -> Tensor:
    """Weights of a tile's rows: `LEAST_WEIGHT` in the outer quarter of the overlap, 1 in the inner.

    >>> ramp(32)[:8]
    tensor([1.0000e-06, 1.0000e-06, 1.2500e-01, 3.7500e-01, 6.2500e-01, 8.7500e-01,
            1.0000e+00, 1.0000e+00])
    """
    middle, overlap = torch.arange(size) + 0.5, OVERLAP * size
    border = torch.minimum(middle, size - middle)
    return ((border - overlap / 4) / (overlap / 2)).clamp(LEAST_WEIGHT, 1)
