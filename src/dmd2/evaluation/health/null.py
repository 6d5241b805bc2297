"""Whether a text teacher knows its unconditional twin, away from which guidance leads."""

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.schedules import expand

LEVELS = (0.4, 0.6, 0.8)
"""The times t of the noise levels; where there is little noise the condition hardly matters."""


@torch.no_grad()
def null_error(denoiser: Denoiser, x: Tensor, noise: Tensor, null: Cond, other: Cond) -> Tensor:
    """|x0_hat - x|^2 under `null` over that under `other` [], a mean over noise levels.

    x      Real samples [B, ...] in model space.
    noise  N(0, I) [B, ...].

    The twin that a teacher was trained with denoises best of all conditions that say nothing: its
    optimum is the posterior mean. Any other is no input that it ever saw.
    """
    ratios = []
    for level in LEVELS:
        t = torch.full((len(x),), level, device=x.device)
        alpha, sigma = (expand(value, x) for value in denoiser.schedule.alpha_sigma(t))
        x_t = (alpha * x + sigma * noise).to(x.dtype)
        errors = [(denoiser(x_t, t, cond) - x).square().mean() for cond in (null, other)]
        ratios.append(errors[0] / errors[1])
    return torch.stack(ratios).mean()
