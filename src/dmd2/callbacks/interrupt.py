"""Ctrl-C and SIGTERM end a run at the next iteration's end, with its state saved; several ranks end at a report."""

import signal
from types import FrameType
from typing import Any

import lightning as L

from dmd2.guarded import GuardedModule
from dmd2.ranks import highest


class Interrupt(L.Callback):
    """The first signal asks the trainer to stop; a second one raises KeyboardInterrupt at once.

    Several ranks must stop at the same iteration: every `log_every` they tell each other whether one has a signal.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen from now on."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received is not None:
                raise KeyboardInterrupt
            self.received = signal.Signals(number)
            trainer.should_stop = trainer.world_size == 1

        for number in self.signals:
            self._previous[number] = signal.signal(number, handle)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop now if told to; Lightning may have forgotten in between."""
        assert isinstance(pl_module, GuardedModule)
        if trainer.world_size > 1:
            if trainer.global_step % pl_module.log_every:
                return
            if number := highest(self.received or 0):
                self.received = signal.Signals(number)
        if self.received is not None:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
