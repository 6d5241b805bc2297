"""Data with a known fault, for the bench of the health checks."""

from dataclasses import replace
from typing import Any

import torch

from dmd2.data import Digits
from dmd2.data.split import Split
from dmd2.randomness import generator


class ShuffledLabels(Digits):
    """The digits, each with the label of another one."""

    def load(self) -> tuple[Split, Split, list[str]]:
        """The splits, the train split's labels permuted."""
        train, test, names = super().load()
        order = torch.randperm(len(train), generator=generator(0, "fault")).numpy()
        return replace(train, labels=train.labels[order]), test, names

    def identity(self) -> dict[str, Any]:
        """As of the digits, and the fault."""
        return super().identity() | {"fault": "shuffled labels"}


class TwoClassesGone(Digits):
    """The digits without 3 and 8."""

    def load(self) -> tuple[Split, Split, list[str]]:
        """The splits, the train split without two of the ten classes."""
        train, test, names = super().load()
        kept = (train.labels != 3) & (train.labels != 8)
        return Split(train.x[kept], train.labels[kept]), test, names

    def identity(self) -> dict[str, Any]:
        """As of the digits, and the fault."""
        return super().identity() | {"fault": "two classes gone"}


class TenthOfData(Digits):
    """A tenth of the digits."""

    def load(self) -> tuple[Split, Split, list[str]]:
        """The splits, the train split of every tenth image."""
        train, test, names = super().load()
        return Split(train.x[::10], train.labels[::10]), test, names

    def identity(self) -> dict[str, Any]:
        """As of the digits, and the fault."""
        return super().identity() | {"fault": "a tenth of the data"}
