"""The run's page at regular intervals, so that a run can be followed while it goes."""

from collections.abc import Callable
from typing import Any

import lightning as L

from dmd2.distributed.rank_zero import on_rank_zero


class Report(L.Callback):
    """Every `every` iterations, but for the last: `report` writes the page. The end has its own.

    It stands behind what scores and draws.

    report  Writes the page of the run so far.
    """

    def __init__(self, every: int, *, report: Callable[[], None]) -> None:
        if every < 1:
            raise ValueError(f"callbacks.report.every must be at least 1, got {every}")
        self.every, self.report = every, report

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Write it when it is time."""
        if trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            on_rank_zero(self.report)
