"""Weights h(r) = f''(r) r^2 of f-divergences D_f(p || q) = E_q f(r), r = p / q (f-distill).

p is the data's density and q the generator's, both noised. The gradient of D_f in the generator's
weights is E h(r) (s_q - s_p) dx: that of the reverse KL, which is DMD's, with a weight for each
sample (arXiv:2502.15681). A YAML names one with `_partial_: true`.
"""

import torch
from torch import Tensor


def reverse_kl(r: Tensor) -> Tensor:
    """1, of f = -log r: DMD itself. It forgives modes that are missing."""
    return torch.ones_like(r)


def forward_kl(r: Tensor) -> Tensor:
    """r, of f = r log r: weighs what the generator misses, and covers all modes."""
    return r


def jensen_shannon(r: Tensor) -> Tensor:
    """r / (1 + r), of f = r log r - (1 + r) log((1 + r) / 2)."""
    return r / (1 + r)


def squared_hellinger(r: Tensor) -> Tensor:
    """sqrt(r), of f = 4 (1 - sqrt r)."""
    return r.sqrt()


def softened_reverse_kl(r: Tensor) -> Tensor:
    """1 / (1 + r), of f = (1 + r) log((1 + r) / r)."""
    return 1 / (1 + r)


def jeffreys(r: Tensor) -> Tensor:
    """1 + r, of f = (r - 1) log r: the sum of both KL divergences."""
    return 1 + r
