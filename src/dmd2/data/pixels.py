"""Pixels and what a model sees: uint8 in 0..255 and float32 in [-1, 1], EDM's convention."""

import torch
from torch import Tensor


def to_model(x: Tensor) -> Tensor:
    """Model space, float32 in [-1, 1], of uint8 pixels."""
    return x.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """The nearest uint8 pixels of x in model space; what lies beyond [-1, 1] is clamped."""
    return (x.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
