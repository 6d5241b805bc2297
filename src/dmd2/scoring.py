"""Scores of a generator, and what they are to be read against: the teacher, real data, a simple baseline."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn

from dmd2.conditioning import Conditioner
from dmd2.data.base import DataModule
from dmd2.data.split import Split
from dmd2.files import write_json
from dmd2.generation import Maker, Numbered, StudentMaker, TeacherMaker
from dmd2.metrics.suite import Suite
from dmd2.nets.denoiser import Denoiser
from dmd2.sampling import FewStepSampler, Heun, Solver

Scores = dict[str, float]
References = dict[str, dict[str, Scores]]
Baseline = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Train samples, their labels and a number to as many samples and labels."""


class Scoring:
    """Scores with one suite and one set of numbered samples.

    suite          Detectors and metrics.
    num_samples    Samples a score.
    batch_size     Samples at once on each rank; the score does not depend on it.
    teacher_steps  Step counts at which the teacher is scored.
    primary        The metric to judge by; lower is better.
    baselines      Simple generators fitted to the train split, by name.
    num_reference  Real samples of each split that the suite is fitted to; None takes all.
    solver         Steps to what samples the teacher.
    seed           Seed of the samples' noise, the same for every run so that scores compare.
    """

    def __init__(
        self,
        suite: Suite,
        num_samples: int,
        batch_size: int,
        teacher_steps: Sequence[int],
        primary: str,
        num_reference: int | None,
        baselines: Mapping[str, Baseline] | None = None,
        solver: Callable[[int], Solver] = Heun,
        seed: int = 0,
    ) -> None:
        if num_samples < 2:
            raise ValueError(f"a score needs at least 2 samples, got metric.num_samples={num_samples}")
        self.suite, self.num_samples, self.batch_size = suite, num_samples, batch_size
        self.teacher_steps, self.primary, self.seed = tuple(teacher_steps), primary, seed
        self.solver = solver
        self.baselines, self.num_reference = dict(baselines or {}), num_reference

    def attach(self, data: DataModule, conditioner: Conditioner, sampler: FewStepSampler) -> None:
        """Bind to a run's data, and to how its samples are made."""
        self.data, self.conditioner, self.sampler = data, conditioner, sampler
        self.fitted_on: torch.device | None = None

    def student(self, generator: Denoiser, stop: Callable[[], bool] = lambda: False) -> Scores:
        """Scores of a generator's numbered samples; raises InterruptedError as soon as `stop()` says so."""
        return self._score(self.student_maker(generator), generator, stop)

    def references(self, teacher: Denoiser, guidance: float, cache: Path) -> References:
        """Scores to compare with: `teacher` by network evaluations, `floor` (real held-out data), `baselines`.

        They do not depend on the run, so they are made once and kept in the file `cache`.
        """
        if cache.exists():
            return json.loads(cache.read_text())
        print(f"scoring the teacher at {', '.join(map(str, self.teacher_steps))} steps, once")
        self._fit(device_of(teacher))
        makers = self.teacher_makers(teacher, guidance)
        train, given = (torch.tensor(part) for part in (self.data.train.x, self.data.train.labels))
        labels = self.data.class_of(given)
        found = {
            "teacher": {str(maker.num_evaluations): self._score(maker, teacher) for maker in makers},
            "floor": {"real": self.suite.floor()} if len(self.data.test) else {},
            "baselines": {
                name: self.suite.evaluate([baseline(train, labels, self.num_samples)])
                for name, baseline in self.baselines.items()
            },
        }
        names = set().union(*found["teacher"].values())
        if self.primary not in names:
            raise ValueError(f"metric.primary is {self.primary}, but the metrics are {', '.join(sorted(names))}")
        write_json(cache, found)
        return found

    def student_maker(self, generator: Denoiser) -> StudentMaker:
        """What makes samples of a generator as the run's sampler does."""
        return StudentMaker(generator, self.conditioner, self.sampler)

    def teacher_makers(self, teacher: Denoiser, guidance: float) -> list[TeacherMaker]:
        """What makes samples of the teacher, at each of its step counts."""
        return [TeacherMaker(teacher, self.conditioner, self.solver(n), guidance) for n in self.teacher_steps]

    def numbered(self, device: torch.device | str) -> Numbered:
        """The numbered samples that everything here is scored on, and grids show."""
        return Numbered(self.data.shape, self.conditioner.num_classes, self.seed, device)

    def _score(self, maker: Maker, network: nn.Module, stop: Callable[[], bool] = lambda: False) -> Scores:
        device = device_of(network)
        self._fit(device)
        rank, world_size = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        mine = range(self.num_samples)[rank::world_size]

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for x0, labels in self.numbered(device).batches(maker, mine, self.batch_size):
                if stop():
                    raise InterruptedError("a score was asked to end early")
                yield self.data.to_pixels(x0), self.data.class_of(labels)

        with torch.autocast(device.type, enabled=False):
            return self.suite.evaluate(batches())

    def _fit(self, device: torch.device) -> None:
        if self.fitted_on != device:
            train, test = self._reference(self.data.train), self._reference(self.data.test)
            self.suite.fit(*train, *test, device)
            self.fitted_on = device

    def _reference(self, split: Split) -> tuple[np.ndarray, Tensor]:
        """Evenly spaced rows of a split: files come class by class."""
        num = min(len(split), self.num_reference or len(split))
        rows = np.linspace(0, len(split) - 1, num).astype(int)
        return split.x[rows], self.data.class_of(torch.from_numpy(split.labels[rows]))


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without any."""
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
