"""A progress bar with losses, samples per second and the time left.

It shows the numbers that were logged last, so it never reads the device.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L

from dmd2.io.progress import progress_bar
from dmd2.training.manual_optimization import ManualOptimization


class Progress(L.Callback):
    """One bar a fit, `title` before it; `shown` maps a logged key to its short name in the bar."""

    def __init__(self, title: str, total: int, shown: Mapping[str, str]) -> None:
        self.title, self.total, self.shown = title, total, dict(shown)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar, on rank 0 alone."""
        self.bar = progress_bar(
            self.title, self.total, initial=trainer.global_step, unit="it", delay=0, leave=True
        )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Advance; renew the numbers when new ones were logged."""
        assert isinstance(pl_module, ManualOptimization)
        self.bar.update(1)
        latest: dict[str, float] = pl_module.latest
        # Numbers come every `log_every` iterations; in between the bar shows the last ones.
        if latest:
            self.bar.set_postfix(
                {short: f"{latest[key]:.3g}" for key, short in self.shown.items() if key in latest},
                refresh=False,
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, if it was opened, so that the error starts on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()
