"""Signals: Ctrl-C, SIGTERM, a hangup, Slurm's notice of a limit end a run at an iteration's end.

The state is saved then, and the run can be resumed.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import lightning as L

from dmd2.distributed import hangup, slurm
from dmd2.distributed.process_group import all_reduce_max
from dmd2.training.manual_optimization import ManualOptimization
from dmd2.training.record import Record


def answer(received: signal.Signals, when: str) -> None:
    """Say at once that the run will end, and when."""
    line = f"\ndmd2: {received.name}: ending after this {when}; a second one ends at once\n"
    # Not print, which would fail where the signal came in the middle of another; and there may be
    # no terminal any more.
    with suppress(OSError):
        os.write(sys.stderr.fileno(), line.encode())


class Interrupt(L.Callback):
    """The first signal asks the trainer to stop; a second Ctrl-C or SIGTERM ends it at once.

    Several ranks must stop at the same iteration: every `log_every` iterations they compare whether
    one has received a signal.

    In a Slurm job that is requeued, SIGTERM saves and training goes on: Slurm ends the job when it
    likes, and takes one that ends before that for finished.

    record  Gets the signal at which all ranks agreed to end.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.received: signal.Signals | None = None  # by this process
        self.save_asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember who handles the signals, before Lightning and this callback do."""
        # Not when training starts: what Lightning has put there by then refers to the trainer, and
        # would keep all networks in memory when it is given back.
        heard = () if hangup.is_ignored() else (signal.SIGHUP,)
        ahead = slurm.AHEAD if slurm.active() else ()
        numbers = (signal.SIGINT, signal.SIGTERM, *heard, *ahead)
        self._previous = {number: signal.getsignal(number) for number in numbers}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle signals from now on."""

        # The first signal only sets a flag: it may come in the middle of anything, e.g. of a
        # collective.
        def end(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                hangup.leave_terminal()
            # Slurm's own notice may come twice, as a hangup does, of the system and the shell; only
            # a person's second signal means "now".
            elif self.received is not None and number not in slurm.AHEAD:
                raise KeyboardInterrupt
            self.received = signal.Signals(number)
            if trainer.is_global_zero:
                answer(self.received, "report" if trainer.world_size > 1 else "iteration")
            # Alone there is nobody to agree with; else it waits for the next comparison.
            if trainer.world_size == 1:
                self.record.signal = self.received
                trainer.should_stop = True

        def save(number: int, frame: FrameType | None) -> None:
            self.save_asked = True

        for number in self._previous:
            saves = number == signal.SIGTERM and slurm.active()
            signal.signal(number, save if saves else end)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stop or save now where a signal asked for it."""
        assert isinstance(pl_module, ManualOptimization)
        if trainer.world_size > 1:
            # A comparison is a collective, so it is made where the ranks meet the host anyway.
            if trainer.global_step % pl_module.log_every:
                return
            # One number for two answers: the signal, times two, and whether to save.
            number, asked = divmod(all_reduce_max(2 * (self.received or 0) + self.save_asked), 2)
        else:
            number, asked = self.received or 0, self.save_asked
        if number:
            self.record.signal = signal.Signals(number)
            trainer.should_stop = True  # again, as Lightning resets it between epochs
        elif asked:
            self.save_asked = False
            for callback in trainer.checkpoint_callbacks:
                callback.save(trainer)  # type: ignore[attr-defined]  # ours, or there is none

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back, when all is saved."""
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
