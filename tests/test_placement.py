"""What is on the device, and what only while it works: tables and labels stay on the host."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dmd2.data import Digits
from dmd2.diffusion.conditioning import ClassLabels, sending
from dmd2.distributed.device import device_of, lent
from dmd2.nets.autoencoder import VAE
from dmd2.nets.text.prompts import CachedPrompts, Prompts
from dmd2.nets.text.tiny import tiny_clip
from dmd2.randomness import Draws
from pipelines import save_vae

META = torch.device("meta")  # no GPU is needed to see where a tensor would go
CAPTIONS = ["a zero", "a one", "a two"]


class Travelling(nn.Linear):
    """A layer that notes where it was sent."""

    def to(self, *args, **kwargs):
        """Note the way, and go."""
        self.ways = [*getattr(self, "ways", []), str(args[0])]
        return super().to(*args, **kwargs)


def encoder():
    pytest.importorskip("transformers")
    return tiny_clip(["a", "zero", "one", "two"], hidden_size=8, num_layers=1, max_length=6)


def test_labels_of_a_batch_stay_on_the_host_and_all_else_is_sent():
    batch = {"label": torch.zeros(2).long(), "real": torch.zeros(2, 1), "pair_label": torch.ones(1)}
    moved = Digits(batch_size=2, seed=0).transfer_batch_to_device(batch | {"index": 3}, META, 0)
    assert moved["real"].device == META and moved["index"] == 3
    assert moved["label"] is batch["label"] and moved["pair_label"] is batch["pair_label"]


def test_labels_are_drawn_on_the_host_as_they_were():
    draws = Draws(3, 7, 1, 2)
    assert torch.equal(draws.labels(10, 4), draws.integers("label", 0, 10, 4))
    assert torch.equal(Draws(3, 7, 1, 2, META).labels(10, 4), draws.labels(10, 4))
    assert draws.labels(0, 4).tolist() == [0, 0, 0, 0]


def test_tables_of_captions_stay_on_the_host(tmp_path: Path):
    plain, table = (
        Prompts(CAPTIONS, encoder(), "empty"),
        CachedPrompts(CAPTIONS, encoder(), "empty", str(tmp_path)),
    )
    labels = torch.tensor([2, 0])
    here = table(labels)["text"]
    assert torch.equal(here, plain(labels)["text"])
    assert plain.to(META).tokens.device.type == "cpu"
    cond = table.to(META)(labels)
    assert cond["text"].device == META and cond["text"].shape == here.shape
    assert table.table["text"].device.type == "cpu" and table.null(cond)["text"].device == META


def test_conditions_of_labels_on_the_host_are_sent():
    cond = sending(ClassLabels(3), META)(torch.tensor([2, 0]))
    assert cond["label"].device == META and cond["label"].shape == (2, 3)


def test_a_table_s_encoder_is_on_the_device_only_while_a_metric_s_captions_are_read(tmp_path: Path):
    conditioner = CachedPrompts(CAPTIONS, encoder(), "empty", str(tmp_path))
    others = conditioner.of(["one"])
    assert device_of(others) == torch.device("cpu")
    assert not list(conditioner.parameters())  # so it does not move with the training's


def test_what_is_lent_goes_back_also_after_an_error():
    layer = Travelling(2, 2)
    with pytest.raises(ZeroDivisionError), lent(layer, torch.device("cpu:0")):
        assert layer.ways == ["cpu:0"]
        raise ZeroDivisionError
    assert layer.ways == ["cpu:0", "cpu"]


def test_an_autoencoder_that_was_offloaded_decodes_the_same(tmp_path: Path):
    pytest.importorskip("diffusers")
    save_vae(tmp_path / "vae", 0.25)
    vae = VAE(str(tmp_path), 16, 0.25, factor=2)
    vae.offload()  # not read yet: nothing to do
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = vae.decode(z)
        vae.offload()
        assert vae.network.device.type == "cpu" and torch.equal(vae.decode(z), before)
