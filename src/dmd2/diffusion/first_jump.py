"""What the first of a student's few steps is to make of noise, from a teacher's ODE (DP-DMD)."""

from collections.abc import Callable

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.diffusion.solvers import DDIM, Denoise, coefficients, ddim_walk


class FirstJump(DDIM):
    """The x0 with which one step from noise lands where a teacher's ODE is at a later time.

    DP-DMD (arXiv:2602.03139) regresses the first step on it, so that samples stay as diverse as the
    teacher's: with a flow and the teacher's state z at t', it is noise - v, v = (noise - z) /
    (1 - t'). The student must walk by ODEWalk: with fresh noise it lands elsewhere.

    num_steps  DDIM's steps, equal ones of t; published are 6.
    until      The time where they end, the student's second; published is the half of 12 steps.
    start      The student's first time. The walk starts at 1 whatever it is, from pure noise.

    Raises ValueError for a number of steps below 1, and unless 0 < until < start <= 1.

    >>> from dmd2.diffusion import Flow
    >>> FirstJump().num_evaluations(Flow())
    6
    """

    def __init__(self, num_steps: int = 6, until: float = 0.5, start: float = 1.0) -> None:
        super().__init__(num_steps)
        if not 0 < until < start <= 1:
            raise ValueError(
                "until and start must be the times of the student's second and first step, "
                f"0 < until < start <= 1, got {until} and {start}; "
                "e.g. pairs.solver.until=0.5 pairs.solver.start=1.0"
            )
        self.until, self.start = until, start

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Tensor,
        cond: Cond,
        churn_noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """x0 [B, ...], not a clean sample, from N(0, I) noise [B, ...]."""
        times = [1 - i / self.num_steps * (1 - self.until) for i in range(self.num_steps + 1)]
        z = ddim_walk(denoise, schedule, noise, cond, times)
        (alpha, sigma), (alpha_z, sigma_z) = (
            coefficients(schedule, t) for t in (self.start, self.until)
        )
        pure = schedule.prior_std * noise.double()
        # A step of ODEWalk, z = alpha' x0 + sigma' (noise - alpha x0) / sigma, solved for x0.
        kept = sigma_z / sigma
        return ((z - kept * pure) / (alpha_z - kept * alpha)).float()
