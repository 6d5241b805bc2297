"""Whether a text teacher knows its unconditional twin, away from which guidance leads."""

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.schedules import expand

LEVELS = (0.4, 0.6, 0.8)
"""The times t of the noise levels; where there is little noise the condition hardly matters."""


@torch.no_grad()
def null_error(
    denoiser: Denoiser, x: Tensor, noise: Tensor, null: Cond, other: Cond, at_once: int
) -> Tensor:
    """|x0_hat - x|^2 under `null` over that under `other` [], a mean over noise levels.

    x        Real samples [B, ...] in model space.
    noise    N(0, I) [B, ...].
    at_once  Samples of a pass.

    The twin that a teacher was trained with denoises best of all conditions that say nothing: its
    optimum is the posterior mean. Any other is no input that it ever saw.
    """
    errors = torch.zeros(len(LEVELS), 2, device=x.device)
    for start in range(0, len(x), at_once):
        rows = slice(start, start + at_once)
        for level, found in zip(LEVELS, errors, strict=True):
            t = torch.full((len(x[rows]),), level, device=x.device)
            alpha, sigma = (expand(value, x) for value in denoiser.schedule.alpha_sigma(t))
            x_t = (alpha * x[rows] + sigma * noise[rows]).to(x.dtype)
            for i, cond in enumerate((null, other)):
                own = {key: value[rows] for key, value in cond.items()}
                found[i] += (denoiser(x_t, t, own) - x[rows]).square().sum()
    return (errors[:, 0] / errors[:, 1]).mean()
