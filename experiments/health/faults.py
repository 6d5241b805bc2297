"""Parts with a known fault, for the bench of the health checks."""

from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from dmd2.data import Digits
from dmd2.data.split import Split
from dmd2.losses import DistributionMatching
from dmd2.losses.term import Logs
from dmd2.losses.turns import GeneratorTurn
from dmd2.randomness import generator
from dmd2.training.ema import EMA


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


class OverflowingFloat16(DistributionMatching):
    """Distribution matching under a float16 loss scale that is too large, and never lowered."""

    scale = 2.0**20

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [], infinite above 65504 / scale."""
        loss, logs = super().__call__(turn)
        return (loss * self.scale).half().float() / self.scale, logs


class Float16Averages(L.Callback):
    """Averages (EMA) that are rounded to float16 after every iteration."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Round them."""
        assert isinstance(pl_module.ema, EMA)
        for weights in pl_module.ema.models.parameters():
            weights.copy_(weights.half().float())
