"""Conditions: class labels to what a denoiser reads, and the unconditional twin for guidance.

A `Cond` is a dictionary of tensors [B, ...], empty for unconditional models. Only the denoiser that
belongs to the conditioner knows its keys. All other code may join, repeat and slice its rows, and
nothing else.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dmd2.distributed.device import sent

# No dataclass: a family may add keys ("label", "text", ...) and the algorithm stays as it is.
Cond = dict[str, Tensor]


def join(*conds: Cond) -> Cond:
    """The rows of several conditions, one after the other."""
    # Unconditional ones have no keys, so the loop is empty and the result is again no condition.
    return {key: torch.cat([cond[key] for cond in conds]) for key in conds[0]}


def check_labels(labels: Tensor, num: int, what: str = "classes") -> None:
    """Raise ValueError for a label that is none of 0 to `num` - 1, where labels are on the host."""
    # Elsewhere the comparison would wait for the device; there they come from `SampleSet`, from
    # draws or from data, which were checked.
    # Without classes any label is the empty condition.
    if num and labels.device.type == "cpu" and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num:
            raise ValueError(missing_label(low if low < 0 else high, num, what))


def missing_label(label: int, num: int, what: str = "classes") -> str:
    """The message for a label that does not exist: what does."""
    return f"there is no label {label}: the {what} are 0 to {num - 1}; type label=0, say"


class Conditioner(nn.Module):
    """Base: labels int64 [B] to a condition, and a condition to its unconditional twin."""

    num_classes: int = 0
    """The number of labels; 0 for unconditional models."""

    def forward(self, labels: Tensor) -> Cond:
        """The condition of labels int64 [B]."""
        raise NotImplementedError

    def at_size(self, size: Sequence[int] | None) -> Callable[[Tensor], Cond]:
        """Labels int64 [B] to the condition of images of height and width `size` in pixels; None is
        the size that the conditioner was made for.
        """
        # Most networks see the size of x_t and are told no other.
        return self

    def null(self, cond: Cond) -> Cond:
        """The unconditional twin of a condition's rows, for classifier-free guidance.

        With a negative text it is that text's embedding.
        """
        raise NotImplementedError

    def of(self, captions: Sequence[str]) -> "Conditioner":
        """The same conditioner on another table of captions, which labels then number.

        Raises ValueError for conditioners that cannot encode a caption when asked.
        """
        # Captions that were encoded beforehand have a fixed table, and class labels have none.
        raise ValueError(
            f"{type(self).__name__} reads no captions of a metric's own; choose another metric"
        )


def sending(
    conditioner: Callable[[Tensor], Cond], device: torch.device
) -> Callable[[Tensor], Cond]:
    """The same conditioner, whose conditions come to `device` while labels stay on the host."""

    def cond_of(labels: Tensor) -> Cond:
        return {key: sent(value, device) for key, value in conditioner(labels).items()}

    return cond_of


def together(conditioner: Callable[[Tensor], Cond], *labels: Tensor) -> list[Cond]:
    """The conditions of several sets of labels [B_i], by one pass of a text encoder.

    >>> one, two = together(ClassLabels(num_classes=2), torch.tensor([0]), torch.tensor([1, 1]))
    >>> two["label"].tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    sizes = [len(some) for some in labels]
    parts = {key: value.split(sizes) for key, value in conditioner(torch.cat(labels)).items()}
    return [{key: part[i] for key, part in parts.items()} for i in range(len(labels))]


# A class and not None: the algorithm then has no branch for unconditional models.
class Unconditional(Conditioner):
    """No condition: any labels give the empty one."""

    def forward(self, labels: Tensor) -> Cond:
        """The empty condition, whatever the labels are."""
        return {}

    def null(self, cond: Cond) -> Cond:
        """The empty condition."""
        return {}


class ClassLabels(Conditioner):
    """Class labels as one-hot rows [B, num_classes]; all zeros mean "no class", as in EDM.

    >>> conditioner = ClassLabels(num_classes=3)
    >>> conditioner(torch.tensor([2, 0]))
    {'label': tensor([[0., 0., 1.],
            [1., 0., 0.]])}
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, labels: Tensor) -> Cond:
        """{"label": one-hot rows float32 [B, num_classes]} of labels int64 [B].

        Raises ValueError for a label that is no class.
        """
        check_labels(labels, self.num_classes)
        # Compared, not one_hot(): that function reads the labels back to the host.
        classes = torch.arange(self.num_classes, device=labels.device)
        return {"label": (labels[:, None] == classes).float()}

    def null(self, cond: Cond) -> Cond:
        """Rows of zeros: "no class"."""
        # Zeros through a linear layer without a bias: the class then adds nothing (EDM's networks).
        return {"label": torch.zeros_like(cond["label"])}


def drop(cond: Cond, null: Cond, dropped: Tensor) -> Cond:
    """The condition with the rows where `dropped` (bool [B]) is true replaced by `null`'s.

    Training on this teaches a network the unconditional score that guidance needs (Ho & Salimans
    2022, arXiv:2207.12598).
    """
    # torch.where on every key, not an index: a masked index would wait for the device.
    return {
        key: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[key], value)
        for key, value in cond.items()
    }
