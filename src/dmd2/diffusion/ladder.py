"""Times of a few steps by a rule: the denoised image changes as much from each step to the next.

A step is worth its pass where it changes what is drawn. Let L(t) be the length of the path that a
teacher's x0_hat goes along its ODE from t = 1, in root mean squares over entries. N steps are where
L is 0, 1/N, ..., (N - 1)/N of the whole.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.diffusion.solvers import Denoise, ddim_walk


def denoised_path(
    denoise: Denoise, schedule: NoiseSchedule, noise: Tensor, cond: Cond, times: Sequence[float]
) -> Tensor:
    """L at each of falling times from 1 on, float64 [M]: a mean over walks from noise [B, ...].

    DDIM walks by these times.
    """
    seen: list[Tensor] = []

    def watched(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        seen.append(denoise(x_t, t, cond))
        return seen[-1]

    # The walk denoises at all times but its last, which here is the end once more.
    ddim_walk(watched, schedule, noise, cond, [*times, times[-1]])
    changes = torch.stack(seen).double().diff(dim=0).flatten(2).square().mean(2).sqrt().mean(1)
    return torch.cat([changes.new_zeros(1), changes.cumsum(0)])


def gaussian_path(schedule: NoiseSchedule, std: float, times: Sequence[float]) -> Tensor:
    """The same for data N(0, std^2 I), whose denoiser is known: no network is needed.

    Along its ODE x0_hat only grows, as alpha std^2 / sqrt(alpha^2 std^2 + sigma^2).
    """
    alpha, sigma = (c.double() for c in schedule.alpha_sigma(torch.tensor(times)))
    size = alpha * std**2 / torch.hypot(alpha * std, sigma)
    return size - size[0]


def equal_parts(times: Sequence[float], path: Tensor, num_steps: int) -> list[float]:
    """The times [num_steps] at equal parts of a path [M] that is known at falling times [M].

    >>> equal_parts([1.0, 0.5, 0.0], torch.tensor([0.0, 1.0, 3.0]), num_steps=2)
    [1.0, 0.375]
    """
    wanted = float(path[-1]) * np.arange(num_steps) / num_steps
    return [float(t) for t in np.interp(wanted, path.numpy(), times)]


def shares(times: Sequence[float], path: Tensor, ladder: Sequence[float]) -> list[float]:
    """Which part of the path lies between each time of a ladder and the next; after the last, all.

    >>> shares([1.0, 0.5, 0.0], torch.tensor([0.0, 1.0, 4.0]), ladder=[1.0, 0.5])
    [0.25, 0.75]
    """
    # np.interp wants rising abscissas.
    at = np.interp([-t for t in ladder], [-t for t in times], path.numpy())
    return [float(part) for part in np.diff([*at, float(path[-1])]) / float(path[-1])]
