"""A file that says what it is of does not load into anything else."""

import json
from pathlib import Path
from typing import Any

import pytest

from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.song import SongUNet
from dmd2.weights.architecture import check_architecture

ARGUMENTS = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 4,
    "attn_resolutions": [4],
}
FILE = Path("teacher.safetensors")


def metadata(**changed: Any) -> dict[str, str]:
    sigma_data = changed.pop("sigma_data", 0.5)
    model = {"class": "SongUNet", "arguments": ARGUMENTS | changed}
    recorded = {"class": "EDMPrecond", "arguments": {"sigma_data": sigma_data}, "model": model}
    return {"architecture": json.dumps(recorded)}


def section(**changed: Any) -> dict[str, Any]:
    return {
        "sigma_data": 0.5,
        "denoiser": {"sigma_data": 0.5, "model": {"_target_": "", **ARGUMENTS, **changed}},
    }


def test_the_same_arguments_pass_and_so_do_defaults_that_one_side_leaves_out():
    check_architecture(FILE, metadata(), section(), SongUNet)
    check_architecture(
        FILE, metadata(num_blocks=4, resample_filter=[1, 1]), section(dropout=0.1), SongUNet
    )
    check_architecture(FILE, metadata(label_dropout=0), section(label_dropout=0.0), SongUNet)
    check_architecture(FILE, {"weights": "ema"}, section(), SongUNet)


@pytest.mark.parametrize(
    ("recorded", "configured", "words"),
    [
        (
            {"sigma_data": 1.0},
            {},
            ["sigma_data=1.0", "has sigma_data=0.5", "type teacher.sigma_data=1.0"],
        ),
        (
            {"img_resolution": 16},
            {},
            ["=16", "=8", "type teacher.denoiser.model.img_resolution=16"],
        ),
        (
            {},
            {"label_dim": 0},
            ["label_dim=4", "label_dim=0", "type teacher.denoiser.model.label_dim=4"],
        ),
        (
            {"dropout": 0.13},
            {},
            ["dropout=0.13", "dropout=0.1;", "type +teacher.denoiser.model.dropout=0.13"],
        ),
        (
            {},
            {"dropout": 0.13},
            ["dropout=0.1,", "dropout=0.13", "type teacher.denoiser.model.dropout=0.1"],
        ),
        ({"attn_resolutions": [8, 4]}, {}, ["type teacher.denoiser.model.attn_resolutions=[8,4]"]),
        ({"encoder_type": "skip"}, {}, ["type +teacher.denoiser.model.encoder_type=skip"]),
        ({"new_option": 3}, {}, ["new_option=3", "new_option=null"]),
    ],
)
def test_a_difference_is_named_with_both_values_and_what_to_type(
    recorded: dict[str, Any], configured: dict[str, Any], words: list[str]
):
    with pytest.raises(ValueError) as caught:
        check_architecture(FILE, metadata(**recorded), section(**configured), SongUNet)
    assert all(word in str(caught.value) for word in ["teacher.safetensors", *words]), caught.value


def test_another_class_is_named():
    with pytest.raises(
        ValueError, match="of a SongUNet, and this configuration has a DhariwalUNet"
    ):
        check_architecture(FILE, metadata(), section(), DhariwalUNet)
