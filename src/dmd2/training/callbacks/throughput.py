"""Throughput and peak memory, measured between logging iterations."""

import time
from typing import Any

import lightning as L

from dmd2.distributed.device import peak_memory_bytes
from dmd2.training.manual_optimization import ManualOptimization
from dmd2.training.record import Record

COUNTED = ("training_seconds", "num_images", "num_iterations")
"""What a resumed run counts on from."""


class Throughput(L.Callback):
    """Logs `speed/...` at every logging iteration; time spent on scores and pictures is left out.

    An image is a sample that the critic trained on. `images_per_second` is the mean over all
    attempts.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop it; this callback must stand before those that score and draw."""
        assert isinstance(pl_module, ManualOptimization)
        record, num_images = self.record, len(batch["label"]) * trainer.world_size
        record.training_seconds += time.perf_counter() - self._started
        record.num_images += num_images
        # Counts are kept over all attempts, so that a resumed run reports the mean of the whole.
        record.num_iterations += 1
        if trainer.global_step % pl_module.log_every == 0:
            per_iteration = record.training_seconds / record.num_iterations
            pl_module.log_metrics(
                {
                    "speed/images_per_second": record.images_per_second,
                    "speed/seconds_per_iteration": per_iteration,
                    "speed/peak_memory_bytes": float(peak_memory_bytes()),
                    "speed/images_seen": float(trainer.global_step * num_images),
                }
            )

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        return {name: getattr(self.record, name) for name in COUNTED}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on where the resumed run was."""
        for name in COUNTED:
            setattr(self.record, name, state_dict[name])
