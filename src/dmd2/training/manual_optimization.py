"""What both trainings share: an update that is not applied when a number is not finite, and reports
without waits.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from dmd2.distributed.gradients import clip, mean_over_ranks
from dmd2.distributed.process_group import check_same_weights, rank
from dmd2.training.nonfinite import NonFiniteGuard

WATCHED = ("/loss", "/sample_gradient_", "/gradient_norm")
"""Parts of the names of numbers that must be finite."""


class ManualOptimization(L.LightningModule):
    """A module that steps its optimizers by hand and reads the device only when it reports.

    max_grad_norm  Global L2 norm to which an update's gradient is clipped.
    log_every      Iterations between reports.
    max_skipped_updates     Updates that may be skipped for a number that is not finite; the next
                            report ends the run.
    """

    def __init__(self, max_grad_norm: float, log_every: int, max_skipped_updates: int) -> None:
        super().__init__()
        if log_every < 1:
            raise ValueError(f"log_every must be at least 1, got {log_every}")
        self.automatic_optimization = False
        self.max_grad_norm, self.log_every = max_grad_norm, log_every
        self.nonfinite = NonFiniteGuard(max_skipped_updates)
        self.latest: dict[str, float] = {}
        """The numbers that were logged last."""

    @property
    def iteration(self) -> int:
        """Completed iterations: Lightning counts the steps of its own optimizer wrapper, and of no
        other.
        """
        return self.trainer.global_step

    def on_train_start(self) -> None:
        """Raise ValueError where ranks would begin with different weights."""
        if self.trainer.world_size > 1:
            assert self.trainer.global_rank == rank()
            # ShardedStrategy differ; what they were cut from was compared before.
            check_same_weights(
                {k: v for k, v in self.state_dict().items() if not isinstance(v, DTensor)}
            )

    def update(
        self,
        optimizer: Optimizer | LightningOptimizer,
        network: nn.Module,
        numbers: Mapping[str, Tensor],
        name: str,
    ) -> dict[str, Tensor]:
        """Clip the gradients of `network` and step; returns `numbers` [] and `name`/gradient_norm,
        from before.

        Several ranks take the means of their gradients and numbers, here and nowhere else. Where a
        watched number
        is not finite the step is not applied: a fused optimizer reads `found_inf` on the device, so
        nothing waits
        for the host.
        """
        found = dict(numbers)
        if self.trainer.world_size > 1:
            found = mean_over_ranks(network.parameters(), found)
        found[f"{name}/gradient_norm"] = clip(network.parameters(), self.max_grad_norm)
        watched = {
            key: number for key, number in found.items() if any(part in key for part in WATCHED)
        }
        finite = self.nonfinite.watch(watched, self.iteration + 1)
        raw = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if not raw.defaults.get("fused"):  # any other would ignore found_inf, and step
            kind = type(raw).__name__
            raise ValueError(
                f"{kind} must be fused, to skip a bad step; type fused: true in its YAML"
            )
        raw.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        return found

    def advance(self) -> None:
        """An iteration is over: on with the learning rates and with the data's position."""
        schedules: Any = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()
        self.trainer.datamodule.consumed += 1  # type: ignore[attr-defined]

    def report(self, numbers: Mapping[str, Tensor]) -> None:
        """Send numbers [] to the loggers in one read of the device; raises what
        `NonFiniteGuard.check` does.
        """
        self.nonfinite.check()
        numbers = {**numbers, "train/skipped_updates": self.nonfinite.skipped}
        values = torch.stack([value.detach().float() for value in numbers.values()]).tolist()
        self.log_metrics(dict(zip(numbers, values, strict=True)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the number of steps that were skipped."""
        checkpoint["skipped"] = int(self.nonfinite.skipped)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count on from an earlier life."""
        self.nonfinite.skipped = torch.tensor(
            checkpoint.get("skipped", 0)
        )  # older checkpoints have none

    def log_metrics(self, metrics: Mapping[str, float], iteration: int | None = None) -> None:
        """Send numbers to every logger under the number of completed iterations, or of another
        one.
        """
        self.latest |= metrics
        for logger in self.loggers:
            logger.log_metrics(
                dict(metrics), step=self.iteration if iteration is None else iteration
            )
