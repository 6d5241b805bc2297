"""The weight of the squared x0 error at each noise level: which prediction's plain error the loss
is.

Each is a function (alpha, sigma) -> weight, all [B]; a YAML names one with `_partial_: true`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor, Tensor], Tensor]


def x0(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Unit weight: the error of x0 itself."""
    return torch.ones_like(sigma)


def eps(alpha: Tensor, sigma: Tensor) -> Tensor:
    """(alpha / sigma)^2: the error of eps, as DDPM and Stable Diffusion train."""
    return (alpha / sigma) ** 2


def flow(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1 / sigma^2: the error of the flow's velocity, and of v where alpha^2 + sigma^2 = 1."""
    return sigma**-2


def edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """(alpha / sigma)^2 + 1 / sigma_data^2: the error of EDM's raw network (DMD Algorithm 3)."""
    return (alpha / sigma) ** 2 + sigma_data**-2
