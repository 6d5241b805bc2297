"""Whether the later steps are trained on what sampling makes: backward simulation (DMD2 4.5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler


@torch.no_grad()
def input_gap(
    sampler: FewStepSampler,
    generator: Denoiser,
    noise: Sequence[Tensor],
    cond: Cond,
    real: Tensor,
) -> Tensor:
    """RMS distance [] of the last step's training inputs to the states that sampling makes of the
    same noise, in standard deviations of the clean data.

    noise  A tensor [B, ...] for each step, N(0, I).
    real   Real samples [B, ...], for a sampler that trains on them.

    The noise that both have in common cancels. So it is 0 by backward simulation, and of noised
    real samples it is not, however good the generator is: they are others than the noise leads to.
    """
    last = [len(sampler.times) - 1] * len(real)
    trained, t = sampler.training_input(generator, noise, cond, last, real)
    sampled, _ = sampler.walk(generator, noise, cond, last)
    # Of one step alpha may be 0, where both are the same noise.
    signal = generator.schedule.alpha_sigma(t)[0].mean() * real.std()
    return (trained - sampled).square().mean().sqrt() / signal.clamp_min(1e-6)
