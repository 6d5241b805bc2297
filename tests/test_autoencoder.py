"""The VAE between pixels and latents: diffusers' own numbers, its scale, a tiny one that gradients
flow through.
"""

import json
from pathlib import Path

import pytest
import torch

from dmd2.losses.distances import Decoded, SquaredError
from dmd2.nets.autoencoder import VAE, TinyVAE
from pipelines import save_vae

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)


def vae(folder: Path, **settings) -> VAE:
    save_vae(folder / "vae", 0.25)
    return VAE(str(folder), **{"resolution": 16, "scaling_factor": 0.25, "factor": 2} | settings)


def images(num: int = 5) -> torch.Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_latents_are_diffusers_own_draw_from_the_posterior_scaled(tmp_path: Path):
    ours, x = vae(tmp_path), images()
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path, subfolder="vae").eval()
    noise = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        posterior = theirs.encode(x).latent_dist
        expected = 0.25 * (posterior.mean + posterior.std * noise)
        decoded = theirs.decode(expected / 0.25).sample
    torch.testing.assert_close(ours.encode(x, noise), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(expected), decoded, rtol=1e-4, atol=1e-4)
    assert ours.shape == expected.shape[1:] and not any(
        p.requires_grad for p in ours.network.parameters()
    )


def test_a_shift_is_taken_off_before_scaling(tmp_path: Path):
    ours, x, noise = vae(tmp_path), images(1), torch.zeros(1, 4, 8, 8)
    plain = ours.encode(x, noise)
    config = json.loads((tmp_path / "vae" / "config.json").read_text()) | {"shift_factor": 0.5}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    shifted = VAE(str(tmp_path), 16, 0.25, factor=2)
    torch.testing.assert_close(shifted.encode(x, noise), plain - 0.5 * 0.25)
    torch.testing.assert_close(shifted.decode(plain - 0.5 * 0.25), ours.decode(plain))


def test_nothing_is_read_before_somebody_wants_pixels(tmp_path: Path):
    absent = VAE(str(tmp_path / "gone/no/where"), 16, 0.25, factor=2)
    assert absent.shape == (4, 8, 8)
    for ask in (absent.require, lambda: absent.decode(torch.zeros(1, 4, 8, 8))):
        with pytest.raises(FileNotFoundError, match=r"gone/no/where.*teacher\.source=DIR"):
            ask()


@pytest.mark.parametrize("wrong", [{"scaling_factor": 0.5}, {"factor": 4}, {"channels": 8}])
def test_a_vae_of_another_kind_is_refused(tmp_path: Path, wrong: dict):
    with pytest.raises(
        ValueError, match=r"scaling_factor 0\.25, and this configuration 0\.5|latents' shape"
    ):
        _ = vae(tmp_path, **wrong).network
    with pytest.raises(ValueError, match="multiple of the VAE's 2, got 15"):
        vae(tmp_path, resolution=15)


def test_the_identity_tells_weights_and_scale(tmp_path: Path):
    first, same, other = vae(tmp_path), vae(tmp_path), vae(tmp_path / "other")
    other.network.decoder.conv_out.bias.data += 1
    assert (
        first.identity() == same.identity() and first.identity()["vae"] != other.identity()["vae"]
    )
    assert first.identity()["resolution"] == 16 and first.identity()["shape"] == [4, 8, 8]


def test_a_tiny_vae_decodes_scaled_latents_and_lets_gradients_through(tmp_path: Path):
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    counts = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    theirs = diffusers.AutoencoderTiny(**blocks, **counts).eval()
    theirs.save_pretrained(tmp_path)
    tiny, x = TinyVAE(str(tmp_path), 16, factor=2), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(tiny.decode(x), theirs.decode(x).sample, rtol=1e-5, atol=1e-5)
    leaf, target = x.clone().requires_grad_(), torch.randn(2, 4, 8, 8)
    distance = Decoded(tiny, SquaredError())(leaf, target)
    distance.backward()
    expected = (theirs.decode(x).sample - theirs.decode(target).sample).square().mean()
    torch.testing.assert_close(distance, expected)
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="no posterior"):
        tiny.encode(images(1), x)
