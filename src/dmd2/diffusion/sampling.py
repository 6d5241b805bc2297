"""Few-step sampling, and backward simulation: training inputs made by sampling (DMD2 section 4.5).

The generator alternates between denoising and adding noise. Backward simulation stops this loop at
a random step and trains on its state, so that training and inference see the same inputs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.schedules import NoiseSchedule, expand


class FewStepSampler:
    """Denoise, add noise of the next time, denoise again, ... (DMD2 section 4.5).

    times  Strictly falling, in (0, 1]: one network evaluation each. [1.0] is a one-step generator.

    Raises ValueError for other times.

    >>> from dmd2.diffusion import EDM, Karras
    >>> from dmd2.nets.toy import MLP
    >>> generator, sampler = EDM(MLP(dim=2), Karras()), FewStepSampler(times=[1.0, 0.5])
    >>> noise = [torch.randn(8, 2) for _ in sampler.times]
    >>> sampler.sample(generator, noise, cond={}).shape
    torch.Size([8, 2])
    """

    # A set of names and not a flag: the training module merges it with what the loss terms need.
    needs: frozenset[str] = frozenset()
    """What training inputs are made of besides noise: nothing, or {"real"}."""

    def __init__(self, times: Sequence[float] = (1.0,)) -> None:
        falling = all(a > b for a, b in pairwise(times))
        # t = 0 is excluded: there x_t has no noise left to remove.
        if not times or not falling or not all(0 < t <= 1 for t in times):
            raise ValueError(
                f"sampler.times must fall strictly from at most 1 towards 0, got {list(times)}; "
                "type e.g. sampler.times=[1.0,0.75,0.5,0.25]"
            )
        self.times = tuple(times)

    def sample(self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond) -> Tensor:
        """x0 [B, ...] from N(0, I) noise, a tensor [B, ...] a step; the last step has gradients."""
        # `walk` stops before the last evaluation, which is the one that training trains.
        x_t, t = self.walk(generator, noise, cond, len(self.times) - 1)
        return generator(x_t, t, cond)

    def training_input(
        self,
        generator: Denoiser,
        noise: Sequence[Tensor],
        cond: Cond,
        step: int,
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The generator's training input at times[step]: x_t [B, ...] and t [B].

        This is backward simulation: x_t comes from the generator's own samples. `real` [B, ...] is
        not read here.
        """
        return self.walk(generator, noise, cond, step)

    def walk(
        self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond, step: int
    ) -> tuple[Tensor, Tensor]:
        """The sampler's state x_t [B, ...] and t [B] at times[step], from pure noise.

        `noise` holds a tensor for each step up to this one. The steps before keep no graph.
        """
        schedule = generator.schedule
        # Scaled noise alone, without data, also where alpha(1) > 0 (Stable Diffusion's table).
        x_t, t = schedule.prior_std * noise[0], self._time(0, noise[0])
        for i in range(step):
            # Without a graph: DMD2 trains the last step only, else memory would grow with steps.
            with torch.no_grad():
                x0 = generator(x_t, t, cond)
            x_t = self._following(schedule, x_t, x0, i, noise)
            t = self._time(i + 1, x0)
        return x_t, t

    def _following(
        self, schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, i: int, noise: Sequence[Tensor]
    ) -> Tensor:
        """The state [B, ...] at times[i + 1], of the state and x0_hat at times[i]."""
        # x_{t_{i+1}} = alpha(t_{i+1}) x0_hat + sigma(t_{i+1}) eps_{i+1} (DMD2 section 4.5).
        return schedule.add_noise(x0, noise[i + 1], self._time(i + 1, x0))

    # One time for the whole batch; the sampler's step is drawn once for all ranks.
    def _time(self, step: int, like: Tensor) -> Tensor:
        return torch.full((len(like),), self.times[step], device=like.device)


class NoisedReal(FewStepSampler):
    """The same sampler, trained on noised real samples: no backward simulation (DMD2 Table 4).

    The first step's input stays pure noise. The condition must be that of the real samples.
    """

    # The training module then gives real samples, and their condition in place of drawn labels.
    needs = frozenset({"real"})

    def training_input(
        self,
        generator: Denoiser,
        noise: Sequence[Tensor],
        cond: Cond,
        step: int,
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """x_t [B, ...] and t [B] at times[step], made of real samples [B, ...]."""
        if step == 0:
            # Sampling starts from pure noise; noised real data shows through where alpha(1) > 0.
            return self.walk(generator, noise, cond, 0)
        assert real is not None  # `needs` asked for it
        t = self._time(step, real)
        return generator.schedule.add_noise(real, noise[step], t), t


class ODEWalk(FewStepSampler):
    """The same without fresh noise: each step goes on along the trajectory that it is on.

    It is DDIM with eta = 0 (Song et al. 2021, Eq. 12), and for flows Euler's method: x + (sigma' -
    sigma) v. Training inputs come from the same walk. Only noise[0] is read, the start.

    >>> from dmd2.diffusion import Flow, UnscaledDenoiser
    >>> from dmd2.nets.toy import MLP
    >>> generator = UnscaledDenoiser(MLP(dim=2), Flow(shift=3.0), prediction="flow")
    >>> ODEWalk([1.0, 0.5]).sample(generator, [torch.randn(8, 2)], cond={}).shape
    torch.Size([8, 2])
    """

    def _following(
        self, schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, i: int, noise: Sequence[Tensor]
    ) -> Tensor:
        alpha, sigma = schedule.alpha_sigma(self._time(i, x0))
        # eps_hat = (x_t - alpha x0_hat) / sigma is the noise that is in x_t; sigma > 0, as t > 0.
        eps = (x_t - expand(alpha, x_t) * x0) / expand(sigma, x_t)
        # x_{t'} = alpha(t') x0_hat + sigma(t') eps_hat.
        return schedule.add_noise(x0, eps, self._time(i + 1, x0))
