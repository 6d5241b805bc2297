"""What the first of a student's few steps is to make of noise, from a teacher's ODE (DP-DMD)."""

from collections.abc import Callable, Sequence

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

    num_steps  DDIM's steps, equal ones of t, from 1 to the student's second time; published are 6.
    times      The student's; published is half of 12 steps, 1.0 and 0.5. The walk starts at 1, from
               pure noise, also where the first of them is less.

    Raises ValueError for a number of steps below 1, and unless 0 < times[1] < times[0] <= 1.

    >>> from dmd2.diffusion import Flow
    >>> FirstJump().num_evaluations(Flow())
    6
    """

    def __init__(self, num_steps: int = 6, times: Sequence[float] = (1.0, 0.5)) -> None:
        super().__init__(num_steps)
        if len(times) < 2 or not 0 < times[1] < times[0] <= 1:
            raise ValueError(
                "times must be those of the student's steps, at least two that fall from at most 1 "
                f"towards 0, got {list(times)}; type e.g. sampler.times=[1.0,0.5]"
            )
        self.start, self.until = times[0], times[1]

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
        pure = schedule.start_std(self.start) * noise.double()
        # A step of ODEWalk, z = alpha' x0 + sigma' (noise - alpha x0) / sigma, solved for x0.
        kept = sigma_z / sigma
        return ((z - kept * pure) / (alpha_z - kept * alpha)).float()
