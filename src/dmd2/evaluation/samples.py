"""Samples by number: sample i has its own label and noise, so that a set does not depend on batch
size or ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser, guided
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.solvers import Solver
from dmd2.randomness import generator, normal_rows


@dataclass(frozen=True)
class GeneratorSampling:
    """A few-step generator."""

    generator: Denoiser
    conditioner: Conditioner
    sampler: FewStepSampler

    @property
    def num_evaluations(self) -> int:
        """Network evaluations a sample (NFE)."""
        return len(self.sampler.times)

    def __call__(self, noise: Callable[[int], Tensor], labels: Tensor) -> Tensor:
        noises = [noise(i) for i in range(len(self.sampler.times))]
        return self.sampler.sample(self.generator, noises, self.conditioner(labels))


@dataclass(frozen=True)
class TeacherSampling:
    """The teacher under its ODE (or SDE) solver, guided as the distillation is."""

    teacher: Denoiser
    conditioner: Conditioner
    solver: Solver
    guidance: float = 1.0

    @property
    def num_evaluations(self) -> int:
        """Network evaluations a sample (NFE); a guided one counts once, as it is one pass."""
        return self.solver.num_evaluations(self.teacher.schedule)

    def __call__(self, noise: Callable[[int], Tensor], labels: Tensor) -> Tensor:
        cond = self.conditioner(labels)
        null = self.conditioner.null(cond)

        def denoise(x_t: Tensor, t: Tensor, _: object) -> Tensor:
            return guided(self.teacher, x_t, t, cond, null, self.guidance)

        churn_noise = (lambda i: noise(i + 1)) if self.solver.churn else None
        return self.solver.sample(denoise, self.teacher.schedule, noise(0), cond, churn_noise)


Sampling = GeneratorSampling | TeacherSampling


@dataclass(frozen=True)
class SampleSet:
    """The numbered samples of a maker: `shape` of one, classes in turn (or none), all randomness
    from `seed`.
    """

    shape: tuple[int, ...]
    num_classes: int
    seed: int
    device: torch.device | str = "cpu"

    def labels(self, rows: range) -> Tensor:
        """The labels of some samples: the classes in turn, so that any K of them are balanced."""
        return torch.tensor(rows, device=self.device) % max(self.num_classes, 1)

    def noise(self, rows: range, i: int) -> Tensor:
        """The i-th N(0, I) tensor [len(rows), ...] of some samples."""
        return normal_rows(rows, self.shape, self.seed, "sample", i).to(self.device)

    @torch.no_grad()
    def make(self, maker: Sampling, rows: range) -> tuple[Tensor, Tensor]:
        """Samples x0 [len(rows), ...] in model space and their labels."""
        labels = self.labels(rows)
        return maker(lambda i: self.noise(rows, i), labels), labels

    @torch.no_grad()
    def pairs(self, maker: TeacherSampling, rows: range) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, what the teacher's ODE makes of it, and labels; noise as float16 holds it, so that
        they match.
        """
        noise, labels = self.noise(rows, 0).half().float(), self.labels(rows)
        return noise, maker(lambda _: noise, labels), labels

    def batches(
        self, maker: Sampling, rows: range, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same in batches."""
        for start in range(0, len(rows), batch_size):
            yield self.make(maker, rows[start : start + batch_size])


@dataclass(frozen=True)
class RandomClassSampleSet(SampleSet):
    """The same with classes drawn independently, each as likely: EDM's protocol."""

    def labels(self, rows: range) -> Tensor:
        """The labels of some samples: sample i's depends on the seed and i alone."""
        draws = (generator(self.seed, "sample label", i) for i in rows)
        labels = [torch.randint(max(self.num_classes, 1), (), generator=draw) for draw in draws]
        return torch.stack(labels).to(self.device)
