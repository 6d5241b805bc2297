"""ODE solvers that sample teachers: Heun's method (Karras et al. 2022), and DDIM.

Both hold the state in float64 and work in the variable sigma / alpha, so one solver serves every
schedule. With eps_hat = (x - alpha x0_hat) / sigma the ODE is d(x / alpha) / d(sigma / alpha) =
eps_hat.
"""

import math
from collections.abc import Callable, Sequence
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

    def sample(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Tensor,
        cond: Cond,
        churn_noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """x0 [B, ...] from N(0, I) noise [B, ...].

        `churn_noise(i)` gives step i's fresh noise where churn > 0.
        """


class DDIM:
    """Deterministic DDIM (Song et al. 2021, Eq. 12 with eta = 0), from t = 1 in equal steps of t.

    It is Euler's method for the ODE. With 50 steps on a table of 1000 rows it visits the rows 999,
    979, ..., 19 (diffusers' "trailing" spacing). The last step returns the denoiser's output.

    >>> from dmd2.diffusion import Karras, UnscaledDenoiser
    >>> from dmd2.nets.toy import MLP
    >>> teacher = UnscaledDenoiser(MLP(dim=2), Karras(), prediction="x0")
    >>> DDIM(num_steps=4).sample(teacher, teacher.schedule, torch.randn(8, 2), cond={}).shape
    torch.Size([8, 2])
    """

    churn = 0.0  # deterministic

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
        """x0 [B, ...] from N(0, I) noise [B, ...]; DDIM has no churn."""
        # Never t = 0, where sigma is 0 in some schedules and eps_hat would divide by it.
        times = [1 - i / self.num_steps for i in range(self.num_steps)]
        x = ddim_walk(denoise, schedule, noise, cond, times)
        return estimate(denoise, schedule, x, times[-1], cond)[0].float()


class Heun:
    """EDM's sampler (Karras et al. 2022, Algorithm 2) for any schedule, uniform in t.

    num_steps             One is a single pass at t = 1.
    churn                 S_churn; above 0 it is the paper's stochastic sampler.
    s_min, s_max, s_noise The paper's S_tmin, S_tmax (of sigma / alpha) and S_noise.

    Times go from 1 to row 0; on Karras' schedule these are EDM's own levels.

    >>> from dmd2.diffusion import Karras
    >>> Heun(num_steps=18).num_evaluations(Karras())
    35
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
        """Network evaluations a sample (NFE): two a step, but one in the last.

        Where alpha(1) = 0 the first step has one, too.
        """
        alpha, _ = coefficients(schedule, 1.0)
        # EDM: 2 N - 1, since the last step has no correction.
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
        """x0 [B, ...] from N(0, I) noise [B, ...].

        `churn_noise(i)` gives step i's fresh noise where churn > 0.
        """
        times = self._times(schedule)
        # EDM Algorithm 2, line 2: x_0 ~ N(0, t_0^2 I).
        x = schedule.prior_std * noise.double()
        for i, t in enumerate(times):
            if churn_noise is not None:  # lines 4 to 6, the stochastic sampler
                x, t = self._churn(schedule, x, t, churn_noise(i))
            x0, eps, ratio = estimate(denoise, schedule, x, t, cond)
            if i + 1 == len(times):
                # The step to sigma = 0 is Euler's, and that is the denoiser's output.
                return x0.float()
            alpha_next, sigma_next = coefficients(schedule, times[i + 1])
            # Lines 7 and 8, Euler's step: x' = alpha' x0_hat + sigma' eps_hat.
            following = alpha_next * x0 + sigma_next * eps
            # At sigma / alpha = inf, x is pure noise without a slope to average: Euler must do.
            if math.isfinite(ratio):
                _, eps_next, _ = estimate(denoise, schedule, following, times[i + 1], cond)
                # Lines 10 and 11, trapezoidal: x' = alpha' (x0_hat + r (eps - m)) + sigma' m.
                mean = 0.5 * (eps + eps_next)
                following = alpha_next * (x0 + ratio * (eps - mean)) + sigma_next * mean
            x = following
        raise AssertionError("unreachable: num_steps is at least 1")

    def _times(self, schedule: NoiseSchedule) -> list[float]:
        end = float(schedule.time_of_row(torch.tensor(0)))
        # At least two points, so that a single step starts at t = 1 and not at row 0.
        times: list[float] = torch.linspace(
            1, end, max(self.num_steps, 2), dtype=torch.float64
        ).tolist()
        return times[: self.num_steps]

    def _churn(
        self, schedule: NoiseSchedule, x: Tensor, t: float, noise: Tensor
    ) -> tuple[Tensor, float]:
        """Raise the noise level (Algorithm 2, lines 4 to 6), in the variable sigma / alpha."""
        alpha, sigma = coefficients(schedule, t)
        # gamma_i = min(S_churn / N, sqrt(2) - 1) for levels in [S_tmin, S_tmax], else 0.
        gamma = min(self.churn / self.num_steps, math.sqrt(2) - 1)
        if not (gamma > 0 and alpha > 0 and self.s_min <= sigma / alpha <= self.s_max):
            return x, t
        # Line 5: t_hat = t + gamma t.
        ratio = torch.tensor([sigma / alpha * (1 + gamma)], device=x.device)
        raised = float(schedule.time_of_ratio(ratio))
        # A table rounds to a row, so the level reached is read back and not assumed.
        alpha_raised, sigma_raised = coefficients(schedule, raised)
        # Line 6: x_hat = x + sqrt(t_hat^2 - t^2) S_noise eps.
        extra = max((sigma_raised / alpha_raised) ** 2 - (sigma / alpha) ** 2, 0.0) ** 0.5
        return alpha_raised * (x / alpha + extra * self.s_noise * noise), raised


def ddim_walk(
    denoise: Denoise, schedule: NoiseSchedule, noise: Tensor, cond: Cond, times: Sequence[float]
) -> Tensor:
    """The state at the last of falling times, float64 [B, ...], from noise at the first, 1."""
    x = schedule.prior_std * noise.double()
    for t, following in pairwise(times):
        x0, eps, _ = estimate(denoise, schedule, x, t, cond)
        alpha, sigma = coefficients(schedule, following)
        # DDIM Eq. 12, eta = 0: x' = alpha' x0_hat + sigma' eps_hat.
        x = alpha * x0 + sigma * eps
    return x


def estimate(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: float, cond: Cond
) -> tuple[Tensor, Tensor, float]:
    """The denoiser's estimates of data and noise in x, float64 [B, ...], and sigma / alpha."""
    alpha, sigma = coefficients(schedule, t)
    # Networks compute in float32; only the solver's own sums need float64.
    x0 = denoise(x.float(), torch.full((len(x),), t, device=x.device), cond).double()
    # x = alpha x0_hat + sigma eps_hat, solved for eps_hat.
    return x0, (x - alpha * x0) / sigma, sigma / alpha if alpha > 0 else math.inf


def coefficients(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """alpha and sigma at one time, on the host."""
    # As Python floats they multiply float64 states without a cast.
    alpha, sigma = schedule.alpha_sigma(torch.tensor([t]))
    return float(alpha), float(sigma)
