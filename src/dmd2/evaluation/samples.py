"""Which samples are scored and shown: sample i has its own noise and label.

So a set depends on no batch size and on no number of processes, and pictures of two runs compare.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.diffusion.denoiser import Denoiser, guided
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.solvers import Solver
from dmd2.randomness import generator, normal_rows


@dataclass(frozen=True)
class GeneratorSampling:
    """Samples from a few-step generator, as `sampler` makes them."""

    generator: Denoiser
    conditioner: Callable[[Tensor], Cond]
    sampler: FewStepSampler
    name: ClassVar[str] = "student"

    @property
    def num_evaluations(self) -> int:
        """Network evaluations a sample (NFE)."""
        return len(self.sampler.times)

    def conditioned_by(self, conditioner: Conditioner) -> Self:
        """The same with another conditioner."""
        return replace(self, conditioner=conditioner)

    def __call__(self, noise: Callable[[int], Tensor], labels: Tensor) -> Tensor:
        """x0 [B, ...] for labels [B]; `noise(i)` is the N(0, I) tensor [B, ...] of step i."""
        # One tensor a step: the sampler re-noises with fresh noise.
        noises = [noise(i) for i in range(len(self.sampler.times))]
        return self.sampler.sample(self.generator, noises, self.conditioner(labels))

    def by_step(self, samples: "SampleSet", rows: range) -> dict[str, Tensor]:
        """What each sampling step makes of some samples, x0_hat [len(rows), ...] by its name."""
        times, labels = self.sampler.times, samples.labels(rows)
        noises = [samples.noise(rows, i) for i in range(len(times))]
        with torch.no_grad():
            found = self.sampler.predictions(self.generator, noises, self.conditioner(labels))
        names = [f"step {i}, t = {t:.3g}" for i, t in enumerate(times, 1)]
        return dict(zip(names, found, strict=True))


@dataclass(frozen=True)
class TeacherSampling:
    """Samples from the teacher by an ODE (or SDE) solver, guided as the distillation is."""

    teacher: Denoiser
    conditioner: Conditioner
    solver: Solver
    guidance: float | Guidance = 1.0
    name: ClassVar[str] = "teacher"

    @property
    def num_evaluations(self) -> int:
        """Network evaluations a sample (NFE); a guided one counts once, as it is one pass."""
        return self.solver.num_evaluations(self.teacher.schedule)

    def conditioned_by(self, conditioner: Conditioner) -> Self:
        """The same with another conditioner."""
        return replace(self, conditioner=conditioner)

    def __call__(self, noise: Callable[[int], Tensor], labels: Tensor) -> Tensor:
        """x0 [B, ...] for labels [B]; `noise(0)` [B, ...] is where the solver starts."""
        cond = self.conditioner(labels)
        # The unconditional twin, which guidance leads away from.
        null = self.conditioner.null(cond)

        def denoise(x_t: Tensor, t: Tensor, _: object) -> Tensor:
            return guided(self.teacher, x_t, t, cond, null, self.guidance)

        # noise(0) is the start, so step i of a solver that adds noise takes noise(i + 1).
        churn_noise = (lambda i: noise(i + 1)) if self.solver.churn else None
        return self.solver.sample(denoise, self.teacher.schedule, noise(0), cond, churn_noise)


Sampling = GeneratorSampling | TeacherSampling
Dtype = Literal["float32", "bfloat16"]


def computed_in(dtype: Dtype, device: torch.device) -> torch.autocast:
    """A block in which networks compute in `dtype`, whatever autocast it stands in."""
    return torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")


@dataclass(frozen=True)
class SampleSet:
    """Samples by number, with the classes (or captions) in turn: DMD2's protocol.

    shape        Of one sample, in model space.
    num_classes  Classes, or captions of a table; 0 for unconditional models.
    seed         Of all noise.
    device       Where noise and labels go. Noise is drawn on the host, and so the same everywhere.
    """

    shape: tuple[int, ...]
    num_classes: int
    seed: int
    device: torch.device | str = "cpu"

    def labels(self, rows: range) -> Tensor:
        """The labels int64 [len(rows)] of some samples; any K samples in a row are balanced."""
        return torch.tensor(rows, device=self.device) % max(self.num_classes, 1)

    def noise(self, rows: range, i: int) -> Tensor:
        """The i-th N(0, I) tensor [len(rows), ...] of some samples."""
        # Drawn on the host: a GPU's generator gives other numbers for the same seed.
        return normal_rows(rows, self.shape, self.seed, "sample", i).to(self.device)

    @torch.no_grad()
    def make(self, sampling: Sampling, rows: range) -> tuple[Tensor, Tensor]:
        """Samples x0 [len(rows), ...] in model space and their labels.

        Raises FloatingPointError where they are not finite.
        """
        labels = self.labels(rows)
        return _finite(sampling, sampling(lambda i: self.noise(rows, i), labels), rows), labels

    @torch.no_grad()
    def pairs(self, sampling: TeacherSampling, rows: range) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, what the teacher's ODE makes of it, and labels: DMD's regression pairs.

        The noise is as float16 holds it, since that is how it is kept: image and noise must match.
        Raises FloatingPointError where the images are not finite.
        """
        noise, labels = self.noise(rows, 0).half().float(), self.labels(rows)
        return noise, _finite(sampling, sampling(lambda _: noise, labels), rows), labels

    def batches(
        self, sampling: Sampling, rows: range, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What `make` gives, `batch_size` samples at a time."""
        for start in range(0, len(rows), batch_size):
            yield self.make(sampling, rows[start : start + batch_size])


def _finite(sampling: Sampling, x0: Tensor, rows: range) -> Tensor:
    # As uint8 they would be black, and have a score.
    if not x0.isfinite().all():
        raise FloatingPointError(
            f"the {sampling.name}'s samples {rows.start} to {rows.stop - 1} are not finite; "
            "see its weights"
        )
    return x0


@dataclass(frozen=True)
class OneClassSampleSet(SampleSet):
    """The same of one class, or caption, alone."""

    label: int = 0

    def labels(self, rows: range) -> Tensor:
        """The one label, int64 [len(rows)]."""
        return torch.full((len(rows),), self.label, device=self.device)


@dataclass(frozen=True)
class FewClassesSampleSet(SampleSet):
    """The same of a few classes in turn, evenly spaced among all: several samples of each."""

    num_shown: int = 8

    def labels(self, rows: range) -> Tensor:
        """The labels int64 [len(rows)], of `num_shown` classes at most."""
        num = max(min(self.num_classes, self.num_shown), 1)
        return torch.tensor(rows, device=self.device) % num * self.num_classes // num


@dataclass(frozen=True)
class RandomClassSampleSet(SampleSet):
    """The same with classes drawn independently, each as likely: EDM's protocol."""

    def labels(self, rows: range) -> Tensor:
        """The labels int64 [len(rows)]: sample i's depends on the seed and on i alone."""
        # A generator a sample: any range of rows draws the same labels.
        draws = (generator(self.seed, "sample label", i) for i in rows)
        labels = [torch.randint(max(self.num_classes, 1), (), generator=draw) for draw in draws]
        return torch.stack(labels).to(self.device)
