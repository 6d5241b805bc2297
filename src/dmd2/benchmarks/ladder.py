"""Times of a few steps found from a teacher, beside the published ones at equal steps of t."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dmd2.diffusion.denoiser import guided
from dmd2.diffusion.ladder import denoised_path, equal_parts, gaussian_path, shares
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.diffusion.solvers import coefficients
from dmd2.evaluation.samples import SampleSet
from dmd2.runs.build import build_data, device_for
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.run_config import config_of
from dmd2.runs.teacher import build_teacher, teacher_file


@dataclass(frozen=True)
class GaussianData:
    """A schedule without a network, and the standard deviation of Gaussian data for it."""

    schedule: NoiseSchedule
    std: float


def ladder(
    source: Path | None,
    num_steps: int,
    schedules: Mapping[str, GaussianData],
    num_walks: int,
    num_solver_steps: int,
) -> list[str]:
    """A table of two ladders a teacher: of equal changes of x0_hat, and of equal steps of t.

    The last column is the share of the whole change of x0_hat that falls between a step and the
    next: where it is small, the step adds little; where it is large, the step has much to do.

    source            A run's directory: its teacher is walked, under the run's guidance. None takes
                      `schedules`, by closed form.
    num_steps         Steps of a ladder.
    schedules         What to show without a teacher, by name.
    num_walks         Samples of the teacher over which the change is averaged.
    num_solver_steps  DDIM's steps of a walk.

    Raises ValueError for numbers that are too small.
    """
    least = {"num_steps": 1, "num_walks": 1, "num_solver_steps": max(num_steps, 2)}
    for key, number in zip(least, (num_steps, num_walks, num_solver_steps), strict=True):
        if number < least[key]:
            raise ValueError(f"part.{key} must be at least {least[key]}, got {number}")
    times = [1 - i / num_solver_steps for i in range(num_solver_steps)]
    walks = (
        {
            name: (data.schedule, gaussian_path(data.schedule, data.std, times))
            for name, data in schedules.items()
        }
        if source is None
        else {str(source): teacher_path(source, num_walks, times)}
    )
    equal_times = [1 - i / num_steps for i in range(num_steps)]
    lines = ["| teacher | ladder | t | row | sigma / alpha | change, % |", "|---" * 6 + "|"]
    for name, (schedule, path) in walks.items():
        rules = {"equal change": equal_parts(times, path, num_steps), "equal t": equal_times}
        for rule, found in rules.items():
            cells = [name, rule, *described(schedule, found)]
            parts = ", ".join(f"{100 * part:.0f}" for part in shares(times, path, found))
            lines += [f"| {' | '.join([*cells, parts])} |"]
        if source is not None:
            lines += [f"sampler.times=[{','.join(f'{t:.4g}' for t in rules['equal change'])}]"]
    return lines


def described(schedule: NoiseSchedule, times: list[float]) -> Iterator[str]:
    """Times, their rows of the table, and their noise levels, each as a list in words."""
    yield ", ".join(f"{t:.4g}" for t in times)
    yield ", ".join(str(int(row)) for row in schedule.row_of_time(torch.tensor(times)))
    levels = (coefficients(schedule, t) for t in times)
    yield ", ".join(f"{sigma / alpha:.3g}" if alpha else "inf" for alpha, sigma in levels)


def teacher_path(source: Path, num_walks: int, times: list[float]) -> tuple[NoiseSchedule, Tensor]:
    """The schedule of a run's teacher, and how far its x0_hat comes by each time."""
    config = with_pipeline(config_of(source, trust=False))
    data = build_data(config["data"])
    teacher = build_teacher(config, data, teacher_file(config))
    teacher.load_or_train()
    device, network = device_for(config), teacher.denoiser
    network.to(device)
    conditioner = teacher.conditioner.to(device)
    samples = SampleSet(data.shape, conditioner.num_classes, 0, device)
    cond = conditioner(samples.labels(range(num_walks)))
    null = conditioner.null(cond)
    path = denoised_path(
        lambda x_t, t, cond: guided(network, x_t, t, cond, null, teacher.guidance),
        network.schedule,
        samples.noise(range(num_walks), 0),
        cond,
        times,
    )
    return network.schedule, path.cpu()
