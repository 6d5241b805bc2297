"""SANA's, Qwen-Image's and FLUX.2's autoencoders: the numbers of the stock pipelines, both ways."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.nets.autoencoder import VAE
from dmd2.nets.autoencoder_kinds import DCAutoencoder, Flux2VAE, QwenVAE, vae_of
from dmd2.nets.pipeline import pipeline_vae

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)

MEAN, STD = [0.5, -1.0, 0.25, 0.0], [2.0, 0.5, 1.5, 1.0]
DC = {
    "latent_channels": 4,
    "attention_head_dim": 2,
    **{
        f"{half}_{key}": value
        for half in ("encoder", "decoder")
        for key, value in {
            "block_types": ("ResBlock", "EfficientViTBlock"),
            "block_out_channels": (8, 8),
            "qkv_multiscales": ((), (5,)),
            "layers_per_block": (1, 1),
        }.items()
    },
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
QWEN = {
    "base_dim": 24,
    "z_dim": 4,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": MEAN,
    "latents_std": STD,
}
FLUX2 = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "latent_channels": 8,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
# Class of diffusers, its arguments, our class, its constructor's arguments, shape of the latents.
CASES: dict[str, tuple[str, dict[str, Any], type[VAE], dict[str, Any], tuple[int, ...]]] = {
    "sana": (
        "AutoencoderDC",
        DC,
        DCAutoencoder,
        {"scaling_factor": 0.41407, "channels": 4, "factor": 2},
        (4, 8, 8),
    ),
    "qwen": ("AutoencoderKLQwenImage", QWEN, QwenVAE, {"channels": 4, "factor": 4}, (4, 4, 4)),
    "flux2": ("AutoencoderKLFlux2", FLUX2, Flux2VAE, {"channels": 32, "factor": 4}, (32, 4, 4)),
}


def save(folder: Path, name: str, **changes: Any) -> Any:
    """Write the tiny autoencoder of a case to `folder`, and give it as diffusers reads it."""
    torch.manual_seed(0)
    kind, arguments, *_ = CASES[name]
    model = getattr(diffusers, kind)(**arguments | changes).eval()
    if name == "flux2":
        model.bn.running_mean.copy_(torch.linspace(-1, 1, 32))
        model.bn.running_var.copy_(torch.linspace(0.5, 4, 32))
    model.save_pretrained(folder / "vae")
    return model.requires_grad_(False)


def images(num: int = 3) -> Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def stock_latents(name: str, theirs: Any, x: Tensor, noise: Tensor) -> Tensor:
    """Latents as the stock pipeline makes them of images, with a draw where it takes the mean."""
    if name == "sana":
        return theirs.encode(x).latent * theirs.config.scaling_factor
    if name == "qwen":
        posterior = theirs.encode(x.unsqueeze(2)).latent_dist
        drawn = posterior.mean + posterior.std * noise.unsqueeze(2)
        mean, std = (torch.tensor(each).view(1, 4, 1, 1, 1) for each in (MEAN, STD))
        return ((drawn - mean) / std).squeeze(2)
    pipeline = diffusers.Flux2KleinPipeline
    posterior = theirs.encode(x).latent_dist
    drawn = posterior.mean + posterior.std * pipeline._unpatchify_latents(noise)
    # The pipeline's own code, on an autoencoder whose posterior's mode is this draw.
    fixed = SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: drawn))
    vae = SimpleNamespace(encode=lambda _: fixed, bn=theirs.bn, config=theirs.config)
    part = SimpleNamespace(vae=vae, _patchify_latents=pipeline._patchify_latents)
    return pipeline._encode_vae_image(part, x, None)


def stock_images(name: str, theirs: Any, latents: Tensor) -> Tensor:
    """Images as the stock pipeline decodes its latents."""
    if name == "sana":
        return theirs.decode(latents / theirs.config.scaling_factor).sample
    if name == "qwen":
        mean, std = (torch.tensor(each).view(1, 4, 1, 1, 1) for each in (MEAN, STD))
        return theirs.decode(latents.unsqueeze(2) * std + mean).sample[:, :, 0]
    mean = theirs.bn.running_mean.view(1, -1, 1, 1)
    std = (theirs.bn.running_var.view(1, -1, 1, 1) + theirs.config.batch_norm_eps).sqrt()
    z = diffusers.Flux2KleinPipeline._unpatchify_latents(latents * std + mean)
    return theirs.decode(z).sample


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_latents_and_images_are_the_stock_pipeline_s(name: str, tmp_path: Path):
    theirs, (_, _, kind, arguments, shape) = save(tmp_path, name), CASES[name]
    # At once 2: three images are two passes.
    ours = kind(str(tmp_path), 16, **arguments, at_once=2)
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    latents = ours.encode(images(), noise)
    assert latents.shape == (3, *ours.shape) and ours.shape == shape
    torch.testing.assert_close(
        latents, stock_latents(name, theirs, images(), noise), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        ours.decode(latents), stock_images(name, theirs, latents), rtol=1e-5, atol=1e-5
    )


def test_only_sana_s_latents_do_not_depend_on_the_noise(name: str, tmp_path: Path):
    save(tmp_path, name)
    ours = vae_of(str(tmp_path), 16)
    first, second = (ours.encode(images(1), c * torch.ones(1, *ours.shape)) for c in (0.0, 3.0))
    assert torch.equal(first, second) == (name == "sana")


def test_scaling_is_undone(name: str, tmp_path: Path):
    save(tmp_path, name)
    ours = vae_of(str(tmp_path), 16)
    ours.require()
    z = torch.randn(2, *ours.shape)
    _ = ours.network
    torch.testing.assert_close(ours._unscaled(ours._scaled(z)), z, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours._scaled(z), z)


def test_flux2_s_latents_of_typical_z_have_unit_variance(tmp_path: Path):
    theirs = save(tmp_path, "flux2")
    ours = vae_of(str(tmp_path), 16)
    z = torch.randn(4000, 32, 1, 1, generator=torch.Generator().manual_seed(0))
    z = z * theirs.bn.running_var.sqrt()[:, None, None] + theirs.bn.running_mean[:, None, None]
    found = ours._scaled(z)
    assert found.mean((0, 2, 3)).abs().max() < 0.06
    assert found.std((0, 2, 3)).sub(1).abs().max() < 0.06


def test_gradients_reach_the_latents_alone(name: str, tmp_path: Path):
    save(tmp_path, name)
    ours = vae_of(str(tmp_path), 16)
    leaf = torch.randn(2, *ours.shape, requires_grad=True)
    ours.decode(leaf).square().sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().amax((1, 2, 3)).min() > 0
    assert not any(p.requires_grad for p in ours.network.parameters())


def test_class_scale_and_shape_are_those_of_the_file(name: str, tmp_path: Path):
    save(tmp_path, name)
    _, _, kind, arguments, shape = CASES[name]
    for found in (vae_of(str(tmp_path), 16), pipeline_vae(str(tmp_path), 16)):
        assert type(found) is kind and found.shape == shape
        assert found.scaling_factor == arguments.get("scaling_factor", 1.0)
        found.require()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes_work_and_latents_stay_float32(name: str, dtype: str, tmp_path: Path):
    save(tmp_path, name)
    ours = vae_of(str(tmp_path), 16, dtype=dtype)
    latents = ours.encode(images(), torch.zeros(3, *ours.shape))
    assert latents.dtype == ours.decode(latents).dtype == torch.float32
    assert latents.isfinite().all() and ours.network.dtype == getattr(torch, dtype)


WRONG = {
    "sana": [
        ({"scaling_factor": 0.5}, r"scaling_factor 0\.41407, and this configuration 0\.5"),
        ({"channels": 8}, r"shape \(4, 8, 8\), and this configuration \(8, 8, 8\)"),
        ({"factor": 4}, r"shape \(4, 8, 8\), and this configuration \(4, 4, 4\)"),
    ],
    "qwen": [
        ({"channels": 16}, r"shape \(4, 4, 4\), and this configuration \(16, 4, 4\)"),
        ({"factor": 8}, r"shape \(4, 4, 4\), and this configuration \(4, 2, 2\)"),
    ],
    "flux2": [
        ({"channels": 128}, r"shape \(32, 4, 4\), and this configuration \(128, 4, 4\)"),
        ({"factor": 16}, r"shape \(32, 4, 4\), and this configuration \(32, 1, 1\)"),
    ],
}


@pytest.mark.parametrize(
    "name, wrong, words", [(name, *row) for name, rows in WRONG.items() for row in rows]
)
def test_what_the_file_says_otherwise_is_refused(
    name: str, wrong: dict[str, Any], words: str, tmp_path: Path
):
    save(tmp_path, name)
    _, _, kind, arguments, _ = CASES[name]
    with pytest.raises(ValueError, match=words):
        kind(str(tmp_path), 16, **arguments | wrong).identity()


def test_statistics_for_other_channels_are_refused(tmp_path: Path):
    save(tmp_path, "qwen")
    edit(tmp_path, latents_std=[1.0] * 3)
    with pytest.raises(ValueError, match="3 values of latents_std, and 4 channels"):
        vae_of(str(tmp_path), 16).identity()


def test_patches_of_another_size_are_refused(tmp_path: Path):
    save(tmp_path, "flux2")
    edit(tmp_path, patch_size=[1, 4])
    with pytest.raises(ValueError, match=r"patch_size \[1, 4\], and only \[2, 2\]"):
        vae_of(str(tmp_path), 16).identity()


def test_classes_are_told_apart(tmp_path: Path):
    save(tmp_path, "sana")
    with pytest.raises(ValueError, match="is a AutoencoderDC, and not a AutoencoderKLQwenImage"):
        QwenVAE(str(tmp_path), 16).require()
    edit(tmp_path, _class_name="AutoencoderKLWan")
    with pytest.raises(ValueError, match=r"is a AutoencoderKLWan, and supported are .*DC, .*Qwen"):
        vae_of(str(tmp_path), 16)
    with pytest.raises(ValueError, match="multiple of the VAE's 32, got 100"):
        DCAutoencoder(str(tmp_path), 100, 0.41407, 32, 32)


def test_the_identity_tells_the_scale_of_each_channel(tmp_path: Path):
    for folder in ("first", "same", "other"):
        changes = {"latents_std": [2.0, 0.5, 1.5, 1.5]} if folder == "other" else {}
        save(tmp_path / folder, "qwen", **changes)
    first, same, other = (
        vae_of(str(tmp_path / folder), 16).identity() for folder in ("first", "same", "other")
    )
    assert first == same and first["vae"] != other["vae"]
    assert first["shape"] == [4, 4, 4] and json.loads(json.dumps(first)) == first


def test_the_identity_tells_the_batch_norm(tmp_path: Path):
    save(tmp_path, "flux2")
    seen = {vae_of(str(tmp_path), 16).identity()["vae"]}
    for name in ("running_mean", "running_var"):
        moved = vae_of(str(tmp_path), 16)
        getattr(moved.network.bn, name)[0] += 1
        seen.add(moved.identity()["vae"])
    edit(tmp_path, batch_norm_eps=0.5)
    seen.add(vae_of(str(tmp_path), 16).identity()["vae"])
    assert len(seen) == 4


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "vae/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
