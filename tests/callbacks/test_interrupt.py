"""Ctrl-C: the first is answered at once and ends the run behind the iteration, the second now."""

import os
import signal
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from dmd2.training.callbacks import Interrupt
from dmd2.training.manual_optimization import ManualOptimization
from dmd2.training.record import Record


class Signalled(ManualOptimization):
    """Gets `num` Ctrl-C in the middle of its second iteration, or behind its callbacks; one weight,
    and a step each.
    """

    def __init__(self, num: int, behind: bool = False) -> None:
        super().__init__(1.0, 1, 0)
        self.num, self.behind, self.went_on = num, behind, False
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, index: int) -> None:
        if self.iteration == 1 and not self.behind:
            self.interrupt()
        self.optimizers().step()

    def on_train_batch_end(self, *args: Any) -> None:
        if self.trainer.global_step == 2 and self.behind:
            self.interrupt()

    def interrupt(self) -> None:
        for _ in range(self.num):
            os.kill(os.getpid(), signal.SIGINT)
        self.went_on = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Signalled, record: Record) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_steps=9,
        accelerator="cpu",
        callbacks=[Interrupt(record)],
        enable_checkpointing=False,
        **quiet,
    )
    trainer.fit(module, torch.utils.data.DataLoader(range(99)))


@pytest.mark.parametrize("behind", [False, True])
def test_the_first_is_answered_in_a_line_and_ends_the_run_behind_the_iteration(
    behind: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    module, record, before = Signalled(1, behind), Record(), signal.getsignal(signal.SIGINT)
    fit(module, record)
    assert module.went_on and module.trainer.global_step == 2
    assert record.signal == signal.SIGINT and signal.getsignal(signal.SIGINT) is before
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dmd2:")]
    assert lines == ["dmd2: SIGINT: ending after this iteration; a second one ends at once"]


def test_the_second_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    module, before = Signalled(2), signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(module, Record())
    assert not module.went_on and signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err.count("dmd2:") == 1
