"""Conditions: from labels to what a denoiser reads, and their unconditional twin.

A `Cond` is opaque to everyone but the denoiser that came with its conditioner: a dictionary of
tensors [B, ...], empty for unconditional models. Everyone else may only join, repeat and slice its
rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Cond = dict[str, Tensor]


def join(*conds: Cond) -> Cond:
    """The rows of several conditions, one after the other."""
    return {key: torch.cat([cond[key] for cond in conds]) for key in conds[0]}


class Conditioner(nn.Module):
    """Base: labels int64 [B] to a condition, and a condition to its unconditional twin."""

    num_classes: int = 0

    def forward(self, labels: Tensor) -> Cond:
        raise NotImplementedError

    def null(self, cond: Cond) -> Cond:
        """The unconditional twin of a condition's rows, or what a negative text puts in its
        place.
        """
        raise NotImplementedError

    def of(self, captions: Sequence[str]) -> "Conditioner":
        """The same on another table of captions; raises ValueError where captions are not encoded
        as they come.
        """
        raise ValueError(
            f"{type(self).__name__} reads no captions of a metric's own; choose another metric"
        )


class Unconditional(Conditioner):
    """No condition: any labels give the empty one."""

    def forward(self, labels: Tensor) -> Cond:
        return {}

    def null(self, cond: Cond) -> Cond:
        return {}


class ClassLabels(Conditioner):
    """Class labels as one-hot rows [B, num_classes], zeros meaning "no class" (EDM's
    convention).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, labels: Tensor) -> Cond:
        # Compared, not one_hot(): that function reads the labels back to the host.
        classes = torch.arange(self.num_classes, device=labels.device)
        return {"label": (labels[:, None] == classes).float()}

    def null(self, cond: Cond) -> Cond:
        return {"label": torch.zeros_like(cond["label"])}


def drop(cond: Cond, null: Cond, dropped: Tensor) -> Cond:
    """The condition with the rows where `dropped` [B] replaced by their unconditional twins."""
    return {
        key: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[key], value)
        for key, value in cond.items()
    }
