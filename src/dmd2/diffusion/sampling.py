"""Few-step sampling, and backward simulation: training inputs made by sampling (DMD2 section 4.5).

The generator alternates between denoising and adding noise. Backward simulation stops this loop at
some step and trains on its state, so that training and inference see the same inputs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.schedules import NoiseSchedule, expand
from dmd2.diffusion.steps import DrawnStep, StepChoice, Steps


class FewStepSampler:
    """Denoise, add noise of the next time, denoise again, ... (DMD2 section 4.5).

    times  Strictly falling, in (0, 1]: one network evaluation each. [1.0] is a one-step generator.
    steps  How a training batch is divided among the steps: one drawn for all of it, or every one.

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

    def __init__(
        self,
        times: Sequence[float] = (1.0,),
        steps: StepChoice = DrawnStep(),  # noqa: B008
    ) -> None:
        falling = all(a > b for a, b in pairwise(times))
        # t = 0 is excluded: there x_t has no noise left to remove.
        if not times or not falling or not all(0 < t <= 1 for t in times):
            raise ValueError(
                f"sampler.times must fall strictly from at most 1 towards 0, got {list(times)}; "
                "type e.g. sampler.times=[1.0,0.75,0.5,0.25]; to noise levels the times are in "
                "dmd2 benchmark part=ladder"
            )
        self.times, self.choose_steps = tuple(times), steps

    def steps_at(self, step: Sequence[int], device: torch.device | str = "cpu") -> Steps:
        """The steps of these numbers, with their times and those that follow: tensors [B]."""
        t = [self.times[i] for i in step]
        next_t = [(*self.times, 0.0)[i + 1] for i in step]
        return Steps(*(column(values, device) for values in (step, t, next_t)))

    def sample(self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond) -> Tensor:
        """x0 [B, ...] from N(0, I) noise, a tensor [B, ...] a step; the last step has gradients."""
        # `walk` stops before the last evaluation, which is the one that training trains.
        last = len(self.times) - 1
        x_t, t = self.walk(generator, noise, cond, [last] * len(noise[0]))
        return generator(x_t, t, cond)

    def predictions(self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond) -> list[Tensor]:
        """What each step's evaluation makes, x0_hat [B, ...] in order: the last is `sample`'s.

        Each walks anew from the noise: N (N + 1) / 2 evaluations for N steps.
        """
        ends = ([i] * len(noise[0]) for i in range(len(self.times)))
        walks = [self.walk(generator, noise, cond, end) for end in ends]
        return [generator(x_t, t, cond) for x_t, t in walks]

    def training_input(
        self,
        generator: Denoiser,
        noise: Sequence[Tensor],
        cond: Cond,
        step: Sequence[int],
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The generator's training input: x_t [B, ...] and t [B], row i at times[step[i]].

        This is backward simulation: x_t comes from the generator's own samples. `real` [B, ...] is
        not read here.
        """
        return self.walk(generator, noise, cond, step)

    def walk(
        self, generator: Denoiser, noise: Sequence[Tensor], cond: Cond, step: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The sampler's states x_t [B, ...] and t [B] from pure noise, row i at times[step[i]].

        noise  A tensor [B, ...] for each step up to the highest. The steps before keep no graph.
        step   How far each of the B rows goes.
        """
        schedule = generator.schedule
        # Scaled noise alone, without data, also where alpha(1) > 0 (Stable Diffusion's table).
        x_t = schedule.start_std(self.times[0]) * noise[0]
        for i in range(max(step)):
            # The other rows have arrived. Where all go on, no index is copied to the device.
            on = [row for row, end in enumerate(step) if end > i]
            is_all = len(on) == len(step)
            rows = slice(None) if is_all else torch.tensor(on, device=x_t.device)
            before = x_t[rows]
            # Without a graph: DMD2 trains the last step only, else memory would grow with steps.
            with torch.no_grad():
                x0 = generator(before, self._time(i, before), {k: v[rows] for k, v in cond.items()})
            x_t = x_t.clone()  # somebody may have kept what the generator was given
            x_t[rows] = self._following(schedule, before, x0, i, [n[rows] for n in noise])
        return x_t, column([self.times[i] for i in step], x_t.device)

    def _following(
        self, schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, i: int, noise: Sequence[Tensor]
    ) -> Tensor:
        """The state [B, ...] at times[i + 1], of the state and x0_hat at times[i]."""
        # x_{t_{i+1}} = alpha(t_{i+1}) x0_hat + sigma(t_{i+1}) eps_{i+1} (DMD2 section 4.5).
        return schedule.add_noise(x0, noise[i + 1], self._time(i + 1, x0))

    def _time(self, step: int, like: Tensor) -> Tensor:
        return torch.full((len(like),), self.times[step], device=like.device)


def column(values: Sequence[float], device: torch.device | str) -> Tensor:
    """The host's numbers as a tensor [B]; equal ones are filled in on the device, which no copy
    from the host then waits for.
    """
    if len(set(values)) == 1:
        return torch.full((len(values),), values[0], device=device)
    return torch.tensor(values, device=device)


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
        step: Sequence[int],
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """x_t [B, ...] and t [B], row i at times[step[i]], made of real samples [B, ...]."""
        assert real is not None  # `needs` asked for it
        start, _ = self.walk(generator, noise, cond, [0] * len(step))
        steps = self.steps_at(step, real.device)
        eps = torch.stack([noise[k][row] for row, k in enumerate(step)])
        x_t = generator.schedule.add_noise(real, eps, steps.t)
        # Sampling starts from pure noise; noised real data shows through where alpha(1) > 0.
        return torch.where(expand(steps.index == 0, real), start, x_t), steps.t


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
