"""A callback that times the iterations of a training run, and counts what some of them do."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from dmd2.benchmarks.meter import Meter
from dmd2.training.module import DMD


class IterationTimer(L.Callback):
    """Measures the seconds of every iteration, by the clock and of the process's CPU time, waiting
    for the device at both ends.

    num_timed  Iterations that are measured. Of those behind them operations and memory are
               counted, which takes time itself.
    """

    def __init__(self, num_timed: int) -> None:
        self.num_timed = num_timed
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.meters: list[Meter] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, or the count."""
        if trainer.global_step >= self.num_timed:
            assert isinstance(pl_module, DMD)
            self.meters.append(Meter())
            self.meters[-1].ledger.own(held(pl_module, trainer.optimizers), "weights and states")
            self.meters[-1].__enter__()
        self.started = now(), process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop it."""
        if self.meters:
            self.meters[-1].__exit__(None, None, None)
        else:
            started, cpu_started = self.started
            self.seconds.append(now() - started)
            self.cpu_seconds.append(process_time() - cpu_started)


def held(module: DMD, optimizers: Iterable[Optimizer]) -> Iterator[Tensor]:
    """What stays in memory from iteration to iteration: weights, and the optimizers' states."""
    for part in (module, module.models.teacher, module.models.conditioner):
        yield from (*part.parameters(), *part.buffers())
    for state in (state for optimizer in optimizers for state in optimizer.state.values()):
        yield from (x for x in state.values() if isinstance(x, Tensor))


def now() -> float:
    """The time in seconds, once the device has finished all work that was queued."""
    # CUDA kernels are asynchronous: without this one would time their launches.
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


def by_kind(values: Sequence[float], every: int) -> list[float]:
    """The medians of iterations that update the generator, too, the first of every round, and of
    the others, if there are any; last the mean iteration of a round.
    """
    others = [value for i, value in enumerate(values) if i % every]
    medians = [median(values[::every]), *([median(others)] if others else [])]
    return [*medians, (medians[0] + (every - 1) * medians[-1]) / every]


def mean_of(meters: Sequence[Meter], every: int) -> float:
    """Operations of the mean iteration of a round, whose first one updates the generator, too."""
    first, last = meters[0].num_operations, meters[-1].num_operations
    return (first + (every - 1) * last) / every
