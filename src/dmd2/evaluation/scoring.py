"""Scores of a generator, and what they are to be read against: the teacher, real data, a simple
baseline.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dmd2.data.base import DataModule
from dmd2.data.split import Split
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.solvers import Heun, Solver
from dmd2.evaluation.partial_sums import Sums
from dmd2.evaluation.samples import (
    GeneratorSampling,
    RandomClassSampleSet,
    SampleSet,
    Sampling,
    TeacherSampling,
)
from dmd2.evaluation.scores import Sizes
from dmd2.metrics.suite import Batches, MetricSuite, blocks

Scores = dict[str, float]
References = dict[str, dict[str, Scores]]
Baseline = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Train samples, their labels and a number to as many samples and labels."""
NUMBERED = {"balanced": SampleSet, "random": RandomClassSampleSet}


class Scoring:
    """Scores with one suite and one set of numbered samples.

    suite          Detectors and metrics.
    num_samples    Samples a score. Rising numbers score the first so many of one set and name the
                   number:
                   [10000, 50000] gives fid_10k and fid_50k from one pass.
    batch_size     Samples at once, always the same ones: any number of ranks gives the same score
                   to the last digit.
                   Another batch size may change how a network rounds, and nothing else.
    teacher_steps  Step counts at which the teacher is scored.
    primary        The metric to judge by; lower is better.
    baselines      Simple generators fitted to the train split, by name.
    num_reference  Real samples of each split that the suite is fitted to; None takes all.
    solver         Steps to what samples the teacher.
    seed           Seed of the samples' noise, the same for every run so that scores compare.
    classes        Of the samples: "balanced", in turn (DMD2's protocol), or "random" (EDM's).
    """

    def __init__(
        self,
        suite: MetricSuite,
        num_samples: int | Sequence[int],
        batch_size: int,
        teacher_steps: Sequence[int],
        primary: str,
        num_reference: int | None,
        baselines: Mapping[str, Baseline] | None = None,
        solver: Callable[[int], Solver] = Heun,
        seed: int = 0,
        classes: Literal["balanced", "random"] = "balanced",
    ) -> None:
        if classes not in NUMBERED:
            raise ValueError(f"metric.classes must be {' or '.join(NUMBERED)}, got {classes}")
        self.suite, self.sizes, self.batch_size = suite, Sizes(num_samples), batch_size
        self.teacher_steps, self.metric, self.seed = tuple(teacher_steps), primary, seed
        self.solver = solver
        self.baselines, self.num_reference, self.classes = (
            dict(baselines or {}),
            num_reference,
            classes,
        )
        self.sums = Sums()  # kept nowhere

    real_by_label = True
    """Whether the train split shows what labels ask for."""

    @property
    def primary(self) -> str:
        """The metric to judge by, at the first number of samples, which is scored most often."""
        return self.sizes.name(self.metric, self.sizes.numbers[0])

    def attach(self, data: DataModule, conditioner: Conditioner, sampler: FewStepSampler) -> None:
        """Bind to a run's data, and to how its samples are made."""
        self.data, self.conditioner, self.sampler = data, conditioner, sampler
        self.fitted_on: torch.device | None = None

    def student(
        self,
        generator: Denoiser,
        stop: Callable[[], bool] = lambda: False,
        num_sizes: int | None = None,
    ) -> Scores:
        """Scores of a generator's numbered samples, at the first `num_sizes` of their numbers
        (None: at all).

        Raises InterruptedError as soon as `stop()` says so.
        """
        return self._score(
            self.student_maker(generator), generator, stop, self.sizes.numbers[:num_sizes]
        )

    def real_references(self, device: torch.device) -> References:
        """Scores to compare with that need no teacher: `floor` (real held-out data), `baselines`.

        Raises ValueError where the primary metric is none of the suite's.
        """
        self._fit(device)
        real, num, num_held_out = self.data.train, self.sizes.numbers[-1], len(self.suite.test[1])
        labels = torch.tensor(real.labels)
        floor = self.suite.floor() if num_held_out else {}
        if floor and self.metric not in floor:
            raise ValueError(
                f"metric.primary is {self.metric}, but the metrics are {', '.join(sorted(floor))}"
            )
        baselines = {
            name: self._of_set(
                *baseline(torch.tensor(self.data.shown(real.x)), self.data.class_of(labels), num)
            )
            for name, baseline in self.baselines.items()
        }
        return {
            "floor": {"real": self._named(floor, num_held_out)} if floor else {},
            "baselines": baselines,
        }

    def teacher_references(self, teacher: Denoiser, guidance: float) -> References:
        """Scores of the teacher, by network evaluations, and `start`: what it makes where the
        student stands.

        None where no teacher is asked for.
        """
        makers = self.teacher_makers(teacher, guidance)
        found = {str(maker.num_evaluations): self._score(maker, teacher) for maker in makers}
        start = (
            {"untrained_student": self._score(self.student_maker(teacher), teacher)}
            if makers
            else {}
        )
        return {"teacher": found, "start": start}

    def student_maker(self, generator: Denoiser) -> GeneratorSampling:
        """What makes samples of a generator as the run's sampler does."""
        return GeneratorSampling(generator, self.conditioner, self.sampler)

    def teacher_makers(self, teacher: Denoiser, guidance: float) -> list[TeacherSampling]:
        """What makes samples of the teacher, at each of its step counts."""
        return [
            TeacherSampling(teacher, self.conditioner, self.solver(n), guidance)
            for n in self.teacher_steps
        ]

    def numbered(self, device: torch.device | str) -> SampleSet:
        """The numbered samples that everything here is scored on, and grids show."""
        return NUMBERED[self.classes](
            self.data.shape, self.conditioner.num_classes, self.seed, device
        )

    def _score(
        self,
        maker: Sampling,
        network: nn.Module,
        stop: Callable[[], bool] = lambda: False,
        sizes: Sequence[int] | None = None,
    ) -> Scores:
        device = device_of(network)
        self._fit(device)
        numbered = self.numbered(device)

        def batches(rows: range) -> Iterator[tuple[Tensor, Tensor]]:
            for block in blocks(rows, self.batch_size):
                if stop():
                    raise InterruptedError("a score was asked to end early")
                x0, labels = numbered.make(maker, block)
                yield self.data.to_pixels(x0), self.data.class_of(labels)

        with torch.autocast(device.type, enabled=False):
            return self._nested(batches, sizes or self.sizes.numbers)

    def _of_set(self, samples: Tensor, labels: Tensor) -> Scores:
        """Scores of samples that are there."""

        def batches(rows: range) -> Batches:
            own = (slice(block.start, block.stop) for block in blocks(rows, self.batch_size))
            return ((samples[block], labels[block]) for block in own)

        return self._nested(batches, self.sizes.numbers)

    def _nested(self, batches: Callable[[range], Batches], sizes: Sequence[int]) -> Scores:
        """Scores of the first so many samples for each size, each sample made once."""
        self.suite.reset()
        found: Scores = {}
        num = 0
        for size in sizes:
            self.sums.add(self.suite, batches, range(num, size), self.batch_size)
            found |= self._named(self.suite.compute(), size)
            num = size
        self.suite.reset()
        return found

    def _named(self, scores: Scores, num_samples: int) -> Scores:
        return {self.sizes.name(metric, num_samples): value for metric, value in scores.items()}

    def _fit(self, device: torch.device) -> None:
        if not self.suite.metrics:
            raise ValueError(
                "this experiment has no metrics; choose some with metric=NAME, of those in "
                "conf/metric"
            )
        if "real" not in self.data.provides():
            raise ValueError(
                "captions alone show no images to score against; type callbacks.evaluation=null"
            )
        if self.fitted_on != device:
            train, test = self._reference(self.data.train), self._reference(self.data.test)
            self.suite.fit(*train, *test, device, f"{self.data.fingerprint()} {self.num_reference}")
            self.fitted_on = device

    def _reference(self, split: Split) -> tuple[np.ndarray, Tensor]:
        """Evenly spaced rows of a split: files come class by class."""
        num = min(len(split), self.num_reference or len(split))
        rows = np.linspace(0, len(split) - 1, num).astype(int)
        x = self.data.shown(
            split.x if num == len(split) else split.x[rows]
        )  # a memory map stays one
        return x, self.data.class_of(torch.from_numpy(split.labels[rows]))


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without any."""
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
