"""EDM's published networks: imported bit for bit, with every argument, and no code is executed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dmd2.cli.import_weights import import_weights
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.schedules import Karras
from dmd2.io.tensors import load_weights
from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.song import SongUNet
from dmd2.weights.edm import network
from dmd2.weights.pickles import Record, read_pickle

NETWORKS = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


def imported(source: Path) -> tuple[Path, dict[str, str]]:
    out = source.with_suffix(".safetensors")
    import_weights(source, out)
    with safe_open(out, "pt") as file:
        return out, file.metadata()


def built(architecture: dict[str, Any]) -> EDM:
    """The denoiser that a file says it is of."""
    model = architecture["model"]
    inner = NETWORKS[model["class"]](**model["arguments"])
    return EDM(inner, Karras(), architecture["arguments"]["sigma_data"]).eval()


def test_tensors_are_bit_equal_and_the_file_says_where_it_is_from(
    published: Callable[..., Path], reference: Path, name: str
):
    source = published(name)
    out, metadata = imported(source)
    got, wanted = load_file(out), load_file(reference / "edm" / f"{name}.safetensors")
    assert got.keys() == wanted.keys()
    assert all(
        torch.equal(got[key], wanted[key]) and got[key].dtype == wanted[key].dtype for key in wanted
    )
    assert metadata["source"] == source.name
    assert metadata["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_every_constructor_argument_comes_along(
    published: Callable[..., Path], reference: Path, name: str
):
    with safe_open(reference / "edm" / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    source = published(name, dropout=np.float64(0.25), label_dim=np.int64(config["label_dim"]))
    architecture = json.loads(imported(source)[1]["architecture"])
    config |= {"dropout": 0.25}
    assert architecture["class"] == "EDMPrecond"
    assert architecture["arguments"] == config | {"use_fp16": False, "sigma_data": 0.5}
    channels = config.pop("img_channels")
    assert architecture["model"]["class"] == config.pop("model_type")
    assert architecture["model"]["arguments"] == config | {
        "in_channels": channels,
        "out_channels": channels,
    }


@torch.no_grad()
def test_the_imported_network_denoises_as_recorded(
    published: Callable[..., Path], reference: Path, name: str
):
    out, metadata = imported(published(name))
    denoiser = built(json.loads(metadata["architecture"]))
    load_weights(denoiser, out)
    record = np.load(reference / "edm" / f"{name}.npz")
    x, sigma, wanted = (torch.from_numpy(record[key]) for key in ("x", "sigma", "denoised"))
    num_classes = denoiser.model.label_dim
    cond = (
        {"label": torch.eye(num_classes)[torch.from_numpy(record["label"])]} if num_classes else {}
    )
    got = denoiser(x, denoiser.schedule.time_of_ratio(sigma.flatten()), cond)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_numbers_of_numpy_and_records_within_records_are_read(published: Callable[..., Path]):
    content = read_pickle(published("adm_tiny"))
    loss = content["loss_fn"].content
    assert (content["loss_fn"].kind, loss["sigma_data"], loss["means"]) == (
        "EDMLoss",
        0.5,
        [3, True],
    )
    assert content["dataset_kwargs"] == {"path": "images.zip", "xflip": False}
    assert isinstance(
        content["ema"].content["_modules"]["model"].content["_modules"]["enc"], Record
    )


def precond(**changed: Any) -> Record:
    """The smallest EDMPrecond, of no tensors."""
    parts = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_kwargs": {}}
    return Record(
        "EDMPrecond", parts | {"_modules": {"model": Record("SongUNet", parts)}} | changed
    )


LOOP = precond()
LOOP.content["_modules"]["again"] = LOOP


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "'ema' is 'NoneType'"),
        ({"ema": Record("VPPrecond", {})}, "'ema' is 'VPPrecond'"),
        ({"ema": precond(_modules={})}, "holds no SongUNet or DhariwalUNet"),
        (
            {"ema": precond(_modules={"model": Record("VGG", precond().content)})},
            "holds no SongUNet or DhariwalUNet",
        ),
        ({"ema": precond(_init_args=(3,))}, "nameless arguments"),
        ({"ema": precond(_init_kwargs={"label_dim": {}})}, "'label_dim' is dict"),
        ({"ema": precond(_init_kwargs={"channel_mult": [[1]]})}, "'channel_mult' is list"),
        ({"ema": precond(_init_kwargs=[])}, "no _init_kwargs"),
        ({"ema": precond(_parameters={"weight": 3})}, "'weight' is no tensor"),
        ({"ema": precond(_parameters={3: None})}, "no _parameters"),
        ({"ema": Record("EDMPrecond", 3)}, "no _parameters"),
        ({"ema": LOOP}, "'again' is no module, or one in two places"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_such_network_is_named(content: Any, words: str):
    with pytest.raises(ValueError, match=words):
        network(content)
