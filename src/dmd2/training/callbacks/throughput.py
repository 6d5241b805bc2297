"""Throughput and memory, measured between logging iterations."""

import resource
import time
from typing import Any

import lightning as L
import torch

from dmd2.training.manual_optimization import ManualOptimization


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the GPU where there is one, else resident in main
    memory.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Throughput(L.Callback):
    """Logs `speed/...` at every logging iteration; time spent scoring and drawing does not count.

    An image is a sample that the critic trained on. `images_per_second` is the mean over the whole
    fit.
    """

    def __init__(self) -> None:
        self.seconds, self.num_images, self.num_iterations = 0.0, 0, 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

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
        self.seconds += time.perf_counter() - self.started
        self.num_images += len(batch["label"]) * trainer.world_size
        self.num_iterations += 1
        if trainer.global_step % pl_module.log_every == 0:
            pl_module.log_metrics(
                {
                    "speed/images_per_second": self.images_per_second,
                    "speed/seconds_per_iteration": self.seconds / self.num_iterations,
                    "speed/peak_memory_bytes": float(peak_memory_bytes()),
                    "speed/images_seen": float(
                        trainer.global_step * len(batch["label"]) * trainer.world_size
                    ),
                }
            )

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        return {name: getattr(self, name) for name in COUNTED}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a run's earlier life."""
        self.seconds, self.num_images, self.num_iterations = (state_dict[name] for name in COUNTED)

    @property
    def images_per_second(self) -> float:
        """Mean over the fit so far."""
        return self.num_images / self.seconds if self.seconds else 0.0


COUNTED = ("seconds", "num_images", "num_iterations")
