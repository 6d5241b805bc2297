"""Distributions of training times over a noise schedule."""

from typing import Protocol

import torch
from torch import Tensor

from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.diffusion.steps import Steps
from dmd2.randomness import Draws


class TimeSampler(Protocol):
    """A distribution of training times over a schedule."""

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B] in [0, 1], a function of the draws' key, `stream`, and the rows' steps."""


def _bounds(low: float, high: float) -> tuple[float, float]:
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low and high must satisfy 0 <= low <= high <= 1, got {low} and {high}")
    return low, high


class UniformRows:
    """Uniform over the table's rows from `low` to `high`, as shares of it, both ends included.

    Raises ValueError outside 0 <= low <= high <= 1.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        # DMD's gradient draws rows 20 to 980 of 1000: low 0.02, high 0.98.
        self.low, self.high = _bounds(low, high)

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B], whatever the steps."""
        rows = schedule.num_rows
        # 1 would be row `rows`, one past the table's end.
        first, last = (min(round(bound * rows), rows - 1) for bound in (self.low, self.high))
        return schedule.time_of_row(draws.integers(stream, first, last + 1, len(steps))).float()


class WithinSegment:
    """Uniform between the row's step and the next: TDM's segments (arXiv:2503.06674).

    The segments of a walk's steps do not overlap, so that one critic tells them apart by t. Of
    samples that are noised afresh, which are TDM's states where the sampler adds fresh noise.
    The first step's begins at 1, as its input is pure noise, whatever time the network is told.

    low, high  Bounds that the segments are cut to. Raises ValueError outside 0 <= low <= high <= 1.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = _bounds(low, high)

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B] between the next step's time and that of the step's input."""
        low, high = (t.clamp(self.low, self.high) for t in (steps.next_t, steps.input_t))
        return low + (high - low) * draws.uniform(stream, len(steps))


class BelowStep:
    """Uniform below the time of the generator's input: levels with less noise than that has.

    Decoupled DMD (arXiv:2511.22677) draws the times of its guidance so: the noisier levels are
    resolved in the input already. For a first step, whose input is pure noise, these are all times.

    low, high  Bounds that the times are cut to. Raises ValueError outside 0 <= low <= high <= 1.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = _bounds(low, high)

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B] from `low` up to that of the step's input."""
        high = steps.input_t.clamp(self.low, self.high)
        return self.low + (high - self.low) * draws.uniform(stream, len(steps))


class LogNormalSigma:
    """ln(sigma / alpha) ~ N(mean, std^2): EDM's training times (Karras et al. 2022, Table 1)."""

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean, self.std = mean, std

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B]; a draw beyond the schedule's ends gives 0 or 1."""
        # EDM Table 1: ln(sigma) ~ N(P_mean, P_std^2). Clamped: its tails leave the schedule.
        ratio = (self.mean + self.std * draws.normal(stream, (len(steps),))).exp()
        return schedule.time_of_ratio(ratio).clamp(0, 1)


class LogitNormal:
    """logit(t) ~ N(mean, std^2): SD3's training times (Esser et al. 2024, Eq. 19)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = mean, std

    def __call__(self, schedule: NoiseSchedule, draws: Draws, stream: str, steps: Steps) -> Tensor:
        """Times [B], strictly between 0 and 1."""
        # SD3 Eq. 19: middle times most often, where the velocity is hardest to predict.
        return torch.sigmoid(self.mean + self.std * draws.normal(stream, (len(steps),)))
