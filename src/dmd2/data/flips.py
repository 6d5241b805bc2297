"""Horizontal flips: random mirroring of training images as a function of seed and iteration."""

import torch
from torch import Tensor

from dmd2.randomness import generator


def rows_to_flip(seed: int, k: int, num_rows: int, rank: int, world_size: int) -> Tensor:
    """Which of this rank's rows of batch k are mirrored, bool [num_rows] on the CPU, half of them
    on average.
    """
    # Drawn for the global batch and then sliced, so that a row's flip does not depend on how many
    # ranks share the batch.
    draw = torch.rand(num_rows * world_size, generator=generator(seed, k, "flip"))
    return draw.chunk(world_size)[rank] < 0.5


def flip_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Images x [B, C, H, W] with those mirrored left to right that `rows`, bool [B], names."""
    # Without a boolean index, whose size the host would have to wait for.
    chosen = rows.to(x.device, non_blocking=True).view(-1, *[1] * (x.ndim - 1))
    return torch.where(chosen, x.flip(-1), x)
