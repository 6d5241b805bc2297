"""What gradient checkpointing keeps, and that it changes no number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.benchmarks.meter import Meter
from dmd2.nets import DhariwalUNet, SongUNet, from_configs
from families import save_family
from pipelines import save_pipeline

HOW = (False, "selective", True)
SMALL: dict[str, Any] = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}


def of_unet(kind: type, tmp_path: Path, how: object) -> tuple[torch.nn.Module, Callable[[], Any]]:
    """A U-Net of EDM's in training, dropout drawn, and a pass of it."""
    torch.manual_seed(0)
    net = kind(**SMALL, dropout=0.3, gradient_checkpointing=how).train()
    for value in net.parameters():  # fresh ones have branches of zeros
        torch.nn.init.normal_(value, std=0.1)
    x, t = torch.randn(4, 3, 8, 8), torch.randn(4)
    return net, lambda: net(x, t)


def of_pipeline(name: str, tmp_path: Path, how: object) -> tuple[torch.nn.Module, Callable]:
    """A network of diffusers, and a pass of it to the features and the denoised image."""
    save = save_pipeline if name == "sd" else save_family
    save(tmp_path / name, name)
    torch.manual_seed(0)
    tap = "mid_block" if name == "sd" else 0.5
    denoiser = from_configs(str(tmp_path / name), [tap], gradient_checkpointing=how)
    for value in denoiser.parameters():
        torch.nn.init.normal_(value, std=0.1)
    rows = {key: torch.randn(2, *shape) for key, shape in denoiser.shapes(5).items()}
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.6])
    return denoiser, lambda: denoiser(x, t, rows)


CASES = {
    "adm": (of_unet, DhariwalUNet),
    "song": (of_unet, SongUNet),
    "sd": (of_pipeline, "sd"),
    "sd3": (of_pipeline, "sd3"),
}


def measured(name: str, how: object, tmp_path: Path) -> tuple[list[Tensor], int, int]:
    """Output and gradients of a pass, its FLOPs with those of its gradient, and the bytes that its
    graph keeps.
    """
    make, kind = CASES[name]
    net, run = make(kind, tmp_path, how)
    torch.manual_seed(1)  # of dropout
    with Meter() as meter:
        out = run()
        kept = meter.ledger.alive.total()
        out.square().mean().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    return [out.detach(), *grads], meter.flops, kept


@pytest.mark.parametrize("name", CASES)
def test_less_is_kept_and_every_number_is_the_same(name: str, tmp_path: Path):
    everything, selective, inputs = (measured(name, how, tmp_path) for how in HOW)
    for other in (selective, inputs):
        assert len(other[0]) == len(everything[0]) > 10
        assert all(torch.equal(a, b) for a, b in zip(everything[0], other[0], strict=True))
    # No matrix product and no convolution is made twice by the selective way.
    assert everything[1] == selective[1] < inputs[1]
    assert inputs[2] < selective[2] < everything[2]
