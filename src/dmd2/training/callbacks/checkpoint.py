"""Saves the whole state of a run at regular intervals, and keeps the newest and the best."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint as LastCallback

from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.checkpoints import BackgroundIO, Manifest, remove, saved
from dmd2.training.manual_optimization import ManualOptimization


class Checkpoint(LastCallback):
    """Every `every` iterations a file in `folder`, after all other callbacks; the newest `keep`
    stay, and the
    one with the best score of those that had theirs taken at the same iteration, the first of
    equals.

    One that could not be written ends the run when the next is due: the ones before it are still
    there.
    """

    def __init__(self, folder: str, every: int, keep: int) -> None:
        if min(every, keep) < 1:
            raise ValueError(
                f"checkpoint.every and checkpoint.keep must be at least 1, got {every} and {keep}"
            )
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.io = BackgroundIO()
        self.provenance: Manifest = {}
        self.started, self.seconds_waited = time.monotonic(), 0.0

    def attach(self, provenance: Manifest) -> None:
        """Take what every manifest says of the run; `wall_seconds` among it are those of its
        earlier lives.
        """
        self.provenance, self.started = provenance, time.monotonic()

    def wall_seconds(self) -> float:
        """What the run has taken so far, over all its lives."""
        return self.provenance.get("wall_seconds", 0.0) + time.monotonic() - self.started

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time; log the share of the wall time that training waited for it."""
        assert isinstance(pl_module, ManualOptimization)
        if trainer.global_step % pl_module.log_every == 0:
            share = self.seconds_waited / (time.monotonic() - self.started)
            pl_module.log_metrics({"speed/checkpoint_share": share})
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, and return when it is on disk; raises OSError where it could not
        be written.
        """
        if trainer.global_step % self.every:
            self.save(trainer)
        self.io.wait()
        self.prune(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save now, in the background.

        Raises FloatingPointError where too many steps were bad, OSError where the last save could
        not be written.
        """
        module, started = trainer.lightning_module, time.monotonic()
        assert isinstance(module, ManualOptimization)
        module.nonfinite.check()
        self.io.wait()
        manifest = self.provenance | {
            "iteration": trainer.global_step,
            "wall_seconds": self.wall_seconds(),
        }
        path = self.folder / f"{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path, storage_options=manifest)
        self.prune(trainer)
        self.seconds_waited += time.monotonic() - started

    def prune(self, trainer: L.Trainer) -> None:
        """Remove all but the newest and the best of the checkpoints that are on disk; rank 0 does
        it.
        """
        if not trainer.is_global_zero:
            return
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        paths = {int(path.stem): path for path in saved(self.folder)}
        kept = {c.best(paths).get("iteration") for c in callbacks if isinstance(c, Evaluation)}
        for iteration in list(paths)[: -self.keep]:
            if iteration not in kept:
                remove(paths[iteration])
