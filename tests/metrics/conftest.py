"""Shared by the tests of metrics: one thread, and tiny random images."""

import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)


@pytest.fixture
def images() -> Tensor:
    """Smooth random images uint8 [120, 1, 8, 8]."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(120, 1, 4, 4, generator=draws)
    return (torch.nn.functional.interpolate(coarse, size=8, mode="bilinear") * 255).byte()


@pytest.fixture
def labels() -> Tensor:
    """Classes [120] of three."""
    return torch.arange(120) % 3


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    """Correlated features of a real set [200, 6] and a fake set [150, 6] with another mean and
    covariance.
    """
    draws = torch.Generator().manual_seed(1)
    mixing = torch.randn(2, 6, 6, generator=draws)
    real = torch.randn(200, 6, generator=draws) @ mixing[0]
    fake = torch.randn(150, 6, generator=draws) @ (mixing[0] + 0.3 * mixing[1]) + 0.5
    return real, fake
