"""Numbers to log by noise level: means of per-sample values over equal parts of t."""

import torch
from torch import Tensor

from dmd2.losses.term import Logs

NUM_LEVELS = 4
"""Noise levels are logged in this many equal parts of t."""


def by_level(values: Tensor, t: Tensor) -> Logs:
    """Means of per-sample values [B] over equal parts of t [B]; NaN where a part has no sample."""
    # t = 1 belongs to the last part.
    level = (t * NUM_LEVELS).long().clamp(0, NUM_LEVELS - 1)
    inside = level == torch.arange(NUM_LEVELS, device=t.device)[:, None]  # [levels, B]
    # Masked sums: values[mask] would read the number of its rows back to the host.
    means = (inside * values).sum(1) / inside.sum(1)
    return {f"t{i / NUM_LEVELS:.2f}": means[i] for i in range(NUM_LEVELS)}


def error_ratio(x: Tensor, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """|fake - x|^2 over |real - x|^2 [], a mean over equal parts of t [B] that have samples."""
    # By level: the errors at high noise are far larger, and would hide all others.
    errors = [by_level(((x0 - x) ** 2).flatten(1).mean(1), t) for x0 in (fake, real)]
    return torch.stack([errors[0][level] / errors[1][level] for level in errors[0]]).nanmean()
