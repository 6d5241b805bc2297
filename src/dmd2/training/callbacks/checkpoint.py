"""Saves the whole state of a run at regular intervals, and keeps the newest and the best."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from dmd2.distributed.rank_zero import on_rank_zero
from dmd2.training.checkpoints import BackgroundIO, Manifest, remove, saved
from dmd2.training.manual_optimization import ManualOptimization
from dmd2.training.record import Record


class Checkpoint(LightningCheckpoint):
    """Every `every` iterations a file in `folder`, after all other callbacks.

    The newest `keep` stay, and the one with the best score among those at iterations that were
    scored (the first of equals). One that could not be written ends the run when the next is due:
    the ones before it are still there.

    identity  What every manifest says of the run; asked for at the first save.
    io        What writes and reads checkpoint files.
    record    Of the run: its time and its best score.
    """

    def __init__(
        self,
        folder: str,
        every: int,
        keep: int,
        *,
        identity: Callable[[], Manifest],
        io: BackgroundIO,
        record: Record,
    ) -> None:
        if min(every, keep) < 1:
            raise ValueError(
                f"checkpoint.every and checkpoint.keep must be at least 1, got {every} and {keep}"
            )
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.identity, self.io, self.record = identity, io, record
        self.seconds_waited = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Save when it is time; log the share of the wall time that training waited for it."""
        assert isinstance(pl_module, ManualOptimization)
        if trainer.global_step % pl_module.log_every == 0:
            # Logged, so that a user sees what checkpoints cost before they cost much.
            share = self.seconds_waited / (time.monotonic() - self.record.started)
            pl_module.log_metrics({"speed/checkpoint_share": share})
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, and return when it is on disk.

        Raises OSError where it could not be written.
        """
        if trainer.global_step % self.every:
            self.save(trainer)
        self.io.wait()
        on_rank_zero(self.prune)

    def save(self, trainer: L.Trainer) -> None:
        """Save now, in the background.

        Raises FloatingPointError where too many updates were skipped, OSError where the last
        checkpoint could not be written.
        """
        module, started = trainer.lightning_module, time.monotonic()
        assert isinstance(module, ManualOptimization)
        module.nonfinite.check()  # weights of a run that is about to fail are not kept
        self.io.wait()
        manifest = self.identity() | {
            "iteration": trainer.global_step,
            "wall_seconds": self.record.wall_seconds(),
        }
        path = self.folder / f"{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path, storage_options=manifest)
        on_rank_zero(self.prune)
        self.seconds_waited += time.monotonic() - started

    def prune(self) -> None:
        """Remove all but the newest and the best of the checkpoints on disk."""
        # What is on disk counts, not what this attempt has saved: a resumed run prunes older ones
        # too.
        paths = {int(path.stem): path for path in saved(self.folder)}
        best = self.record.best(paths).get("iteration")
        # Keys are in rising order, so these are all but the newest.
        for iteration in list(paths)[: -self.keep]:
            if iteration != best:
                remove(paths[iteration])
