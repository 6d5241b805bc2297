"""The equations of DMD (Yin et al., CVPR 2024) and DMD2 (Yin et al., NeurIPS 2024), on tensors; no
network is called.

Everything is float32 and speaks clean data: `real` and `fake` are the teacher's and the critic's x0
predictions.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def per_sample_mean(x: Tensor) -> Tensor:
    """Mean over all but the first dimension, kept: [B, ...] -> [B, 1, ...]."""
    return x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))


def score_difference(real: Tensor, fake: Tensor) -> Tensor:
    """Direction of DMD Eq. 7 for clean-data predictions [B, ...], without a weight."""
    return fake - real


def normaliser(x: Tensor, real: Tensor, floor: float) -> Tensor:
    """The denominator of DMD's weight, Eq. 8: mean |x - real| of each sample, at least `floor`, [B,
    1, ...].
    """
    return per_sample_mean((x - real).abs()).clamp_min(floor)


def scrub(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Replace non-finite entries by zero; also the number of samples [] that had one."""
    num_scrubbed = (~gradient.isfinite()).flatten(1).any(1).sum()
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0), num_scrubbed


def surrogate(x: Tensor, gradient: Tensor) -> Tensor:
    """A loss [] whose gradient at x is gradient / x.numel() (DMD Algorithm 2)."""
    return 0.5 * ((x - (x - gradient).detach()) ** 2).mean()


def denoising(x0_hat: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
    """Weighted denoising error [] of predictions [B, ...] (DMD Eq. 6), weight [B] from
    `weighting`.
    """
    return (weight.view(-1, *[1] * (x0.ndim - 1)) * (x0_hat - x0) ** 2).mean()


def gan_generator(fake_logits: Tensor) -> Tensor:
    """Non-saturating generator loss [], -log sigmoid(D(fake)) (DMD2 Eq. 4)."""
    return softplus(-fake_logits).mean()


def gan_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic classifier loss [] of the head (DMD2 Eq. 4)."""
    return softplus(fake_logits).mean() + softplus(-real_logits).mean()


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Shares [] of real and of fake samples that the head tells right."""
    return (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()
