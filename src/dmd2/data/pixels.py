"""Pixels uint8 in 0..255 to and from float32 in [-1, 1], by EDM's convention (NVlabs/edm)."""

import torch
from torch import Tensor


def to_model(x: Tensor) -> Tensor:
    """Model space, float32 in [-1, 1], of uint8 pixels."""
    return x.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """The nearest uint8 pixels of x in model space; what lies beyond [-1, 1] is clamped."""
    # 127.5 of the range and 0.5 to round, since the conversion to uint8 truncates.
    return (x.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
