"""Samples in few steps, and what generators of few steps train on: backward simulation (DMD2
section 4.5).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser


class FewStepSampler:
    """Denoise, re-noise to the next time, denoise (DMD2 section 4.5); one step is a list of one.

    Training inputs come from the same loop, walked up to a step without a graph ("backward
    simulation"), so that a
    generator is trained on just what inference shows it.
    """

    needs: frozenset[str] = frozenset()
    """Of "real": what training inputs are made of beside noise."""

    def __init__(self, times: Sequence[float] = (1.0,)) -> None:
        falling = all(a > b for a, b in pairwise(times))
        if not times or not falling or not all(0 < t <= 1 for t in times):
            raise ValueError(
                f"sampler.times must fall strictly from at most 1 towards 0, got {list(times)}; "
                "type e.g. sampler.times=[1.0,0.75,0.5,0.25]"
            )
        self.times = tuple(times)

    def sample(self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond) -> Tensor:
        """x0 [B, ...] from one N(0, I) tensor [B, ...] a step."""
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
        """What a generator trains on at times[step], x_t [B, ...] and t [B]; `real` [B, ...] is not
        read here.
        """
        return self.walk(generator, noise, cond, step)

    def walk(
        self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond, step: int
    ) -> tuple[Tensor, Tensor]:
        """The generator's input x_t [B, ...] and t [B] at times[step], reached by running it from
        pure noise.

        `noise` holds a tensor for each step up to this one; no gradient flows through the walk.
        """
        schedule = generator.schedule
        x_t, t = schedule.prior_std * noise[0], self._time(0, noise[0])
        for i in range(step):
            with torch.no_grad():
                x0 = generator(x_t, t, cond)
            t = self._time(i + 1, x0)
            x_t = schedule.add_noise(x0, noise[i + 1], t)
        return x_t, t

    def _time(self, step: int, like: Tensor) -> Tensor:
        return torch.full((len(like),), self.times[step], device=like.device)


class NoisedReal(FewStepSampler):
    """The same steps, trained on real samples noised to a step's time; the first step's input stays
    pure noise.

    That is training without backward simulation (DMD2 Table 4). The condition must be that of the
    real samples.
    """

    needs = frozenset({"real"})

    def training_input(
        self,
        generator: Denoiser,
        noise: Sequence[Tensor],
        cond: Cond,
        step: int,
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """What a generator trains on at times[step], x_t [B, ...] and t [B], of `real` [B, ...]."""
        if step == 0:
            return self.walk(generator, noise, cond, 0)
        assert real is not None
        t = self._time(step, real)
        return generator.schedule.add_noise(real, noise[step], t), t
