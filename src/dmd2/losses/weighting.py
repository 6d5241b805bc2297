"""Weights of noise levels: lambda(alpha, sigma) of the critic's denoising loss, lambda (x0_hat -
x0)^2 (DMD Eq. 6), and of the generator's GAN loss.

x0_hat is affine in a network's output, so the plain squared error of any output (eps, v, flow,
EDM's raw network) is the error of x0 under one of these weights. Each is a function (alpha, sigma)
-> weight, all [B]; a YAML names one with `_partial_: true`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dmd2.nets.pipeline_noise import noise_of

Weighting = Callable[[Tensor, Tensor], Tensor]
"""alpha [B] and sigma [B] to weights [B]."""


def x0(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Unit weight: the error of x0 itself."""
    return torch.ones_like(sigma)


constant = x0
"""Of a GAN: the same at every level."""


def eps(alpha: Tensor, sigma: Tensor) -> Tensor:
    """(alpha / sigma)^2: the error of eps, as DDPM (Ho et al. 2020) and Stable Diffusion train."""
    # From eps_hat - eps = -(alpha / sigma) (x0_hat - x0).
    return (alpha / sigma) ** 2


def flow(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1 / sigma^2: the error of a rectified flow's output, and of v where alpha^2 + sigma^2 = 1."""
    # From x0_hat = x_t - sigma F: F_hat - F = -(x0_hat - x0) / sigma.
    return sigma**-2


def edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """(alpha / sigma)^2 + 1 / sigma_data^2: the error of EDM's raw network (DMD Algorithm 3).

    >>> edm(torch.ones(1), torch.tensor([80.0]), sigma_data=0.5)
    tensor([4.0002])
    """
    # EDM Table 1, alpha = 1: (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, which is 1 / c_out^2.
    return (alpha / sigma) ** 2 + sigma_data**-2


def alpha2(alpha: Tensor, sigma: Tensor) -> Tensor:
    """alpha^2, of a GAN in SenseFlow (arXiv:2506.00523): less where noise hides the sample."""
    return alpha**2


def signal(alpha: Tensor, sigma: Tensor) -> Tensor:
    """alpha^2 / (alpha^2 + sigma^2): the same for VP, and for EDM, whose alpha is always 1."""
    return alpha**2 / (alpha**2 + sigma**2)


def of_pipeline(source: str) -> Weighting:
    """The weight that makes the plain error of what a published pipeline's network predicts.

    source  Folder or name on the hub. Raises as `noise_of`.
    """
    # Of an image's tokens a shift may depend, and not what is predicted.
    return {"eps": eps, "x0": x0}.get(noise_of(source, num_tokens=1)[1], flow)
