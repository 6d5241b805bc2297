"""Distances of the regression: closed forms, and LPIPS as piq computes it for the published
runs.
"""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from dmd2.losses.distances import LPIPS, SquaredError

WIDTHS = [
    [3, 64, 64],
    [64, 128, 128],
    [128, 256, 256, 256],
    [256, 512, 512, 512],
    [512, 512, 512, 512],
]
"""VGG-16's, between its pools."""
MEAN, STD = (torch.tensor(x)[:, None, None] for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def test_squared_error_is_the_mean_over_everything():
    a, b = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(SquaredError()(a, b), ((a - b) ** 2).mean())


def test_lpips_says_which_file_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth at .*SquaredError"):
        LPIPS()


def vgg() -> nn.Sequential:
    """The layers of torchvision's VGG-16, with random weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for widths in WIDTHS:
        for num_in, num_out in pairwise(widths):
            convolution = nn.Conv2d(num_in, num_out, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2, 2)]
    return nn.Sequential(*layers)


def stages(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What enters each pool, where a pool is the mean of four pixels; of unit length at every
    pixel.
    """
    found = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            found.append(x / x.norm(dim=1, keepdim=True))
            x = avg_pool2d(x, 2)
        else:
            x = layer(x)
    return found


def test_lpips_pools_by_averages_on_images_in_0_1_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth").touch()
    monkeypatch.setattr(
        "torchmetrics.functional.image.lpips._get_tv_model_features", lambda *_, **__: vgg()
    )
    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", True)
    distance, draw = LPIPS(size=None), torch.Generator().manual_seed(1)
    image, target = torch.rand(2, 2, 3, 32, 32, generator=draw) * 2 - 1
    ours, layers = distance(image, target), vgg()
    with torch.no_grad():
        pairs = zip(
            *(stages(layers, ((x + 1) / 2 - MEAN) / STD) for x in (image, target)), strict=True
        )
        weights = [lin.model[-1].weight for lin in distance.network.lins]
        expected = sum(
            ((a - b) ** 2 * w).sum(1).mean((1, 2)) for (a, b), w in zip(pairs, weights, strict=True)
        )
    torch.testing.assert_close(ours, expected.mean(), rtol=1e-4, atol=1e-5)
