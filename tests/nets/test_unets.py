"""EDM's U-Nets against recorded reference tensors, and what the project asks of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.blocks import downsample, separable_filter, upsample
from dmd2.nets.encoder_decoder import EncoderDecoderUNet
from dmd2.nets.song import FilteredConv, SongUNet

REFERENCE = Path(__file__).parents[2].parent / "shared/reference/edm"
FAMILIES = {"DhariwalUNet": DhariwalUNet, "SongUNet": SongUNet}
TINY = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 5,
    "augment_dim": 4,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
VARIANTS = {
    "adm": (DhariwalUNet, {}),
    "ddpmpp": (SongUNet, {}),
    "ncsnpp": (
        SongUNet,
        {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2},
    ),
    "skip": (
        SongUNet,
        {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]},
    ),
}


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=VARIANTS)
def fresh(request: pytest.FixtureRequest) -> EncoderDecoderUNet:
    family, options = VARIANTS[request.param]
    return family(**TINY, **options)


@pytest.fixture
def net(fresh: EncoderDecoderUNet) -> EncoderDecoderUNet:
    """A network in evaluation mode none of whose parameters is zero."""
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return fresh.eval()


def inputs(B: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.randn(B, 3, 8, 8),
        torch.randn(B),
        torch.eye(5)[torch.arange(B) % 5],
        torch.randn(B, 4),
    )


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", ["adm_tiny", "ddpmpp_tiny", "ncsnpp_tiny"])
def test_parity_with_reference(name: str) -> None:
    path = REFERENCE / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no recorded tensors at {path}")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    channels = config.pop("img_channels")
    family = FAMILIES[config.pop("model_type")]
    net = family(in_channels=channels, out_channels=channels, **config).eval()
    net.load_state_dict(
        {key.removeprefix("model."): value for key, value in load_file(path).items()}
    )

    recorded = np.load(path.with_suffix(".npz"))
    x, denoised, encoded = (
        torch.from_numpy(recorded[k]) for k in ("x", "denoised", "encoder_output")
    )
    sigma, label = (
        torch.from_numpy(recorded["sigma"])[:, None, None, None],
        torch.from_numpy(recorded["label"]),
    )
    total = sigma**2 + 0.5**2
    one_hot = F.one_hot(label, config["label_dim"]).float() if config["label_dim"] else None
    layer = net.feature_layers[-1]
    assert layer == f"enc.{recorded['encoder_output_layer']}"
    features = []
    net.get_submodule(layer).register_forward_hook(
        lambda module, args, output: features.append(output)
    )
    with torch.no_grad():
        raw = net(x / total.sqrt(), sigma.flatten().log() / 4, one_hot)
    assert relative_error(0.5**2 / total * x + 0.5 * sigma / total.sqrt() * raw, denoised) < 1e-5
    assert relative_error(features[0], encoded) < 1e-5


@torch.no_grad()
def test_rows_may_be_sliced_between_the_halves(net: EncoderDecoderUNet) -> None:
    args = inputs()
    state = net.encode(*args)
    before = list(state)
    assert all(len(part) == 4 for part in state) and state[-1].ndim == 2
    assert relative_error(net.decode([part[2:] for part in state]), net(*args)[2:]) < 1e-5
    net.decode(state)
    assert len(state) == len(before) and all(a is b for a, b in zip(state, before, strict=True))


@torch.no_grad()
def test_missing_labels_are_zeros(net: EncoderDecoderUNet) -> None:
    x, t, classes, augments = inputs()
    torch.testing.assert_close(net(x, t), net(x, t, 0 * classes, 0 * augments))
    assert relative_error(net(x, t), net(x, t, classes, augments)) > 1e-3


@torch.no_grad()
def test_label_dropout_acts_in_training_only(net: EncoderDecoderUNet) -> None:
    x, t, classes, augments = inputs()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    net.label_dropout = 1.0
    assert relative_error(net(x, t, classes, augments), net(x, t, None, augments)) > 1e-3
    net.train()
    torch.testing.assert_close(net(x, t, classes, augments), net(x, t, None, augments))


def test_every_parameter_has_a_gradient(net: EncoderDecoderUNet) -> None:
    x, t, *_ = inputs()
    net.train()(x, t).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_fresh_output_is_nearly_zero(fresh: EncoderDecoderUNet) -> None:
    assert fresh.eval()(*inputs()).abs().max() < (
        1e-12 if isinstance(fresh, DhariwalUNet) else 1e-3
    )


@torch.no_grad()
def test_memory_format_does_not_matter(net: EncoderDecoderUNet) -> None:
    x, *rest = inputs()
    wanted = net(x, *rest)
    net.to(memory_format=torch.channels_last)
    assert relative_error(net(x.to(memory_format=torch.channels_last), *rest), wanted) < 1e-5


@torch.no_grad()
def test_bfloat16_under_autocast(net: EncoderDecoderUNet) -> None:
    args = inputs()
    wanted = net(*args)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(net(*args).float(), wanted) < 0.1


@torch.no_grad()
@pytest.mark.parametrize("name", ["adm", "ncsnpp"])
def test_traces_as_one_graph(name: str) -> None:
    family, options = VARIANTS[name]
    net = family(**TINY, **options).eval()
    args = inputs()
    torch.testing.assert_close(
        torch.compile(net, backend="eager", fullgraph=True)(*args), net(*args)
    )


def test_feature_layers(fresh: EncoderDecoderUNet) -> None:
    assert fresh.feature_layers == ["enc.8x8_block0", "enc.4x4_block0"]
    for layer in fresh.feature_layers:
        fresh.get_submodule(layer)


def test_size_of_imagenet_teacher() -> None:
    with torch.device("meta"):
        net = DhariwalUNet(64, 3, 3, label_dim=1000)
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (net, net.enc, net.dec)]
    assert sizes == pytest.approx([295.9, 90.3, 204.1], abs=0.05)
    assert net.feature_layers == [f"enc.{res}x{res}_block2" for res in (64, 32, 16, 8)]


def test_fast_box_filter_is_the_box_filter() -> None:
    x, box = torch.randn(2, 4, 6, 6), separable_filter([1, 1])
    kernel = box.expand(4, 1, 2, 2)
    torch.testing.assert_close(downsample(x, box), F.conv2d(x, kernel, stride=2, groups=4))
    torch.testing.assert_close(
        upsample(x, box), F.conv_transpose2d(x, 4 * kernel, stride=2, groups=4)
    )


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_resampling_keeps_constants(taps: list[int]) -> None:
    x, kernel = torch.ones(1, 2, 8, 8), separable_filter(taps)
    for resampled in (downsample(x, kernel), upsample(x, kernel)):
        torch.testing.assert_close(
            resampled[..., 1:-1, 1:-1], torch.ones_like(resampled[..., 1:-1, 1:-1])
        )
    conv = FilteredConv(2, 4, taps)
    assert conv(x).shape == (1, 4, 4, 4)
    torch.testing.assert_close(conv.resample_filter.sum(), torch.tensor(1.0))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="wavelet"):
        SongUNet(8, 3, 3, embedding_type="wavelet")
    with pytest.raises(ValueError, match="resample_filter"):
        separable_filter([1, 2, 1])
