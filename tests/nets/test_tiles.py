"""Images that are decoded in tiles, beside those that are decoded as wholes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dmd2.config.memory import without_memory
from dmd2.nets.autoencoder import VAE
from dmd2.nets.tiles import decoded_in_tiles, ramp, starts
from pipelines import save_vae

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 57), (32, 70), (20, 24)])
def test_tiles_of_a_network_that_reads_neighbours_alone_are_the_whole_image(shape):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 1)
    )
    z, num = latents(*shape).requires_grad_(), []

    def decode(part):
        num.append(part.shape[2:])
        return network(part)

    tiles = decoded_in_tiles(decode, z, 32, 2)
    torch.testing.assert_close(tiles, network(z), rtol=1e-5, atol=1e-5)
    assert all(height <= 32 and width <= 32 for height, width in num)
    assert len(num) == len(starts(shape[0], min(32, shape[0]))) * len(
        starts(shape[1], min(32, shape[1]))
    )
    assert torch.autograd.grad(tiles.square().sum(), z)[0].abs().min() > 0


def test_neighbouring_weights_add_up_to_one():
    weights = torch.zeros(112)
    for start in starts(112, 64):  # an overlap of 16, the least
        weights[start : start + 64] += ramp(64)
    torch.testing.assert_close(weights[12:-12], torch.ones(88), rtol=0, atol=3e-6)


def test_a_vae_s_tiles_differ_by_its_norms_alone(tmp_path: Path):
    """Of a small AutoencoderKL with random weights: by 0.05 of images' standard deviation."""
    save_vae(tmp_path / "vae", 0.25)
    how = {"resolution": 128, "scaling_factor": 0.25, "factor": 2}
    whole, tiled = VAE(str(tmp_path), **how), VAE(str(tmp_path), **how, tile=64)
    with torch.no_grad():
        expected, found = (vae.decode(latents(64, 64)) for vae in (whole, tiled))
    error = (found - expected).square().mean().sqrt() / expected.std()
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert 0 < error < 0.1


def test_tiles_that_do_not_go_are_refused_in_a_line(tmp_path: Path):
    for tile in (20, 24):
        with pytest.raises(ValueError, match=f"32 at least, got {tile}; type memory.decoded_tile"):
            VAE(str(tmp_path), 512, 1.0, tile=tile)


def test_keys_of_caches_know_tiles_and_no_choice_of_memory():
    node = {"factor": 8, "at_once": 1}
    assert without_memory(node | {"tile": None}) == without_memory(node) == {"factor": 8}
    assert without_memory(node | {"tile": 512}) == {"factor": 8, "tile": 512}
