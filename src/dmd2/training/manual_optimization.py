"""Manual optimization, as distillation and the teacher's training share it.

An update takes the mean over ranks, clips, and is not applied where a number is not finite; reports
read the device once in `log_every` iterations. Mixed precision is Lightning's autocast around the
step; what is here works in float32.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from dmd2.distributed.gradients import MeanOverRanks, OneRank, clip
from dmd2.distributed.process_group import check_same_weights, rank
from dmd2.training.nonfinite import NonFiniteGuard, skip_step_unless
from dmd2.training.update_size import relative_change, sketch

WATCHED = ("/loss", "/sample_gradient_", "/gradient_norm")
"""Parts of the names of numbers that must be finite; others may be NaN, as a mean of no sample."""


def is_watched(name: str) -> bool:
    """Whether a number of this name, e.g. "generator/loss_dm" or "loss_dm", must be finite."""
    return any(part in f"/{name}" for part in WATCHED)


class ManualOptimization(L.LightningModule):
    """A module that steps its optimizers by hand and reads the device only when it reports.

    max_grad_norm        Global L2 norm to which an update's gradient is clipped.
    log_every            Iterations between reports.
    max_skipped_updates  Updates that may be skipped for a number that is not finite; the next
                         report after one more ends the run.
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
        """Completed iterations.

        Lightning counts the steps of its own optimizer wrapper, so exactly one optimizer is
        stepped through it.
        """
        return self.trainer.global_step

    def on_train_start(self) -> None:
        """Raise ValueError where ranks would begin with different weights."""
        if self.trainer.world_size > 1:
            assert self.trainer.global_rank == rank()
            # Shards differ; the weights that they are parts of were compared before.
            check_same_weights(
                {k: v for k, v in self.state_dict().items() if not isinstance(v, DTensor)}
            )

    def mean_gradients(
        self, network: nn.Module, passes: Iterable[Callable[[], Mapping[str, Tensor]]], num: int
    ) -> dict[str, Tensor]:
        """Run `num` backward passes, each of which returns numbers [] to log; their means.

        The gradients of `network` add up over the passes (gradient accumulation). They and the
        numbers are means over ranks then, here and nowhere else. A pass in which a number is NaN
        is left out of that number's mean, unless the number is watched.
        """
        strategy: Any = self.trainer.strategy
        several = self.trainer.world_size > 1
        means = MeanOverRanks(network.parameters(), strategy.reduce_dtype) if several else OneRank()
        logs = []
        for i, run in enumerate(passes, 1):
            # What the last pass has added to is complete, and is sent while the pass goes on.
            with means.sending() if i == num else nullcontext():
                logs.append(run())
        names = sorted(logs[0], key=is_watched, reverse=True)  # alike on all ranks
        numbers = torch.stack([torch.stack([log[name].float() for name in names]) for log in logs])
        there = ~numbers.isnan()
        there[:, : sum(map(is_watched, names))] = True  # so that NaN in one pass is NaN in the mean
        # Numbers to log ride in the gradients' all-reduce: no collective of their own.
        found = means.finish(
            {"sum": numbers.where(there, 0.0).mean(0), "share": there.float().mean(0)}
        )
        mean = dict(zip(names, found["sum"] / found["share"], strict=True))
        return {name: mean[name] for name in logs[0]}

    def update(
        self,
        optimizer: Optimizer | LightningOptimizer,
        network: nn.Module,
        numbers: Mapping[str, Tensor],
        name: str,
    ) -> dict[str, Tensor]:
        """Clip the gradients of `network`, step its optimizer, and free them.

        Returns `numbers` [], and under `name`/... the gradient's norm before clipping, whether it
        was clipped, and the update's norm against the weights'. Where a watched number is not
        finite the step is not applied: gradients and numbers are those of `mean_gradients`, so all
        ranks decide alike.
        """
        found = dict(numbers)
        # On torch's optimizer: Lightning's wrapper would hide what is set on it.
        raw = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        found[f"{name}/gradient_norm"] = clip(network.parameters(), self.max_grad_norm, raw)
        found[f"{name}/clipped"] = (found[f"{name}/gradient_norm"] > self.max_grad_norm).float()
        watched = {key: number for key, number in found.items() if is_watched(key)}
        finite = self.nonfinite.watch(watched, self.iteration + 1)
        skip_step_unless(finite, raw)
        before = sketch(raw)
        optimizer.step()
        found[f"{name}/update_to_weights"] = relative_change(before, sketch(raw))
        # Now, not before the next turn: else they lie beside the other network's graph.
        optimizer.zero_grad()
        return found

    def advance(self) -> None:
        """An iteration is over: advance the learning rates and the data's position."""
        schedules: Any = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()
        # Counted here and not by the data: its workers run ahead of training.
        self.trainer.datamodule.consumed += 1  # type: ignore[attr-defined]

    def report(self, numbers: Mapping[str, Tensor]) -> None:
        """Send numbers [] to the loggers, in one read of the device.

        Raises FloatingPointError where too many updates were skipped.
        """
        self.nonfinite.check()
        numbers = {**numbers, "train/skipped_updates": self.nonfinite.skipped}
        # One tensor, one copy to the host: each number on its own would wait for the device.
        values = torch.stack([value.detach().float() for value in numbers.values()]).tolist()
        self.log_metrics(dict(zip(numbers, values, strict=True)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the number of updates that were skipped."""
        checkpoint["skipped"] = int(self.nonfinite.skipped)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count on where the resumed run was."""
        self.nonfinite.skipped = torch.tensor(checkpoint["skipped"])

    def log_metrics(self, metrics: Mapping[str, float], iteration: int | None = None) -> None:
        """Send numbers to every logger, as of `iteration` (None: of the completed iterations)."""
        # The progress bar and the tests read these.
        self.latest |= metrics
        for logger in self.loggers:
            logger.log_metrics(
                dict(metrics), step=self.iteration if iteration is None else iteration
            )
