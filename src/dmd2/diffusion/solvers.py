"""What samples teachers: Heun's method for their ODE (Karras et al. 2022), and DDIM."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.schedules import NoiseSchedule

Denoise = Callable[[Tensor, Tensor, Cond], Tensor]
"""x_t [B, ...], t [B] and a condition to x0_hat [B, ...]: a denoiser, or a guided one."""


class Solver(Protocol):
    """What samples a teacher; `churn` > 0 asks for fresh noise in every step."""

    num_steps: int
    churn: float

    def num_evaluations(self, schedule: NoiseSchedule) -> int:
        """Network evaluations a sample (NFE)."""
        ...

    def sample(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Tensor,
        cond: Cond,
        churn_noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """x0 [B, ...] from N(0, I) noise [B, ...]; `churn_noise(i)` gives step i's fresh noise
        where churn > 0.
        """
        ...


class DDIM:
    """Deterministic DDIM (Song et al. 2021, Eq. 12 with eta = 0) for any schedule, from t = 1 in
    equal steps of t.

    That is Euler's method for the ODE in the variable sigma / alpha. For a table of 1000 rows and
    50 steps these are
    the rows 999, 979, ..., 19, which others call trailing; the last step returns the denoiser's
    output.
    """

    churn = 0.0

    def __init__(self, num_steps: int = 50) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.num_steps = num_steps

    def num_evaluations(self, schedule: NoiseSchedule) -> int:
        """Network evaluations a sample (NFE): one a step."""
        return self.num_steps

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Tensor,
        cond: Cond,
        churn_noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """x0 [B, ...] from N(0, I) noise [B, ...]."""
        times = [1 - i / self.num_steps for i in range(self.num_steps)]
        x = schedule.prior_std * noise.double()
        for t, following in pairwise(times):
            x0, eps, _ = estimate(denoise, schedule, x, t, cond)
            alpha, sigma = coefficients(schedule, following)
            x = alpha * x0 + sigma * eps
        return estimate(denoise, schedule, x, times[-1], cond)[0].float()


class Heun:
    """The ODE sampler of EDM (Karras et al. 2022, Algorithm 2) for any schedule, uniform in t from
    1 to row 0.

    For Karras' schedule these are EDM's own levels. With `churn` > 0 it is the paper's stochastic
    sampler.
    One step is the denoiser's output at t = 1.
    """

    def __init__(
        self,
        num_steps: int = 18,
        churn: float = 0.0,
        s_min: float = 0.0,
        s_max: float = math.inf,
        s_noise: float = 1.0,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.num_steps = num_steps
        self.churn, self.s_min, self.s_max, self.s_noise = churn, s_min, s_max, s_noise

    def num_evaluations(self, schedule: NoiseSchedule) -> int:
        """Network evaluations a sample (NFE): two a step; one in the last, and in the first if it
        sees no data.
        """
        alpha, _ = coefficients(schedule, 1.0)
        return 2 * self.num_steps - 1 - int(alpha == 0 and self.num_steps > 1)

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Tensor,
        cond: Cond,
        churn_noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """x0 [B, ...] from N(0, I) noise [B, ...]; `churn_noise(i)` gives step i's fresh noise
        where churn > 0.
        """
        times = self._times(schedule)
        x = schedule.prior_std * noise.double()
        for i, t in enumerate(times):
            if churn_noise is not None:
                x, t = self._churn(schedule, x, t, churn_noise(i))
            x0, eps, ratio = estimate(denoise, schedule, x, t, cond)
            if i + 1 == len(times):
                return x0.float()
            alpha_next, sigma_next = coefficients(schedule, times[i + 1])
            following = alpha_next * x0 + sigma_next * eps
            if math.isfinite(ratio):  # else x is pure noise, and Euler's step must do
                _, eps_next, _ = estimate(denoise, schedule, following, times[i + 1], cond)
                mean = 0.5 * (eps + eps_next)
                following = alpha_next * (x0 + ratio * (eps - mean)) + sigma_next * mean
            x = following
        raise AssertionError("unreachable: num_steps is at least 1")

    def _times(self, schedule: NoiseSchedule) -> list[float]:
        end = float(schedule.time_of_row(torch.tensor(0)))
        return torch.linspace(1, end, max(self.num_steps, 2), dtype=torch.float64)[
            : self.num_steps
        ].tolist()

    def _churn(
        self, schedule: NoiseSchedule, x: Tensor, t: float, noise: Tensor
    ) -> tuple[Tensor, float]:
        """Raise the noise level by a share gamma (lines 4 to 6 of the algorithm), in the variable
        sigma / alpha.
        """
        alpha, sigma = coefficients(schedule, t)
        gamma = min(self.churn / self.num_steps, math.sqrt(2) - 1)
        if not (gamma > 0 and alpha > 0 and self.s_min <= sigma / alpha <= self.s_max):
            return x, t
        ratio = torch.tensor([sigma / alpha * (1 + gamma)], device=x.device)
        raised = float(schedule.time_of_ratio(ratio))
        alpha_raised, sigma_raised = coefficients(schedule, raised)
        extra = max((sigma_raised / alpha_raised) ** 2 - (sigma / alpha) ** 2, 0.0) ** 0.5
        return alpha_raised * (x / alpha + extra * self.s_noise * noise), raised


def estimate(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: float, cond: Cond
) -> tuple[Tensor, Tensor, float]:
    """The clean data and the noise in x as the denoiser sees them, and sigma / alpha."""
    alpha, sigma = coefficients(schedule, t)
    x0 = denoise(x.float(), torch.full((len(x),), t, device=x.device), cond).double()
    return x0, (x - alpha * x0) / sigma, sigma / alpha if alpha > 0 else math.inf


def coefficients(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """alpha and sigma at one time, on the host."""
    alpha, sigma = schedule.alpha_sigma(torch.tensor([t]))
    return float(alpha), float(sigma)
