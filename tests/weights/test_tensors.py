"""Weights as files: what is written is read, and what does not fit is named."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from dmd2.io.tensors import load_weights, save_weights


def test_round_trip_is_bit_equal_and_leaves_one_file(tmp_path: Path):
    path = tmp_path / "new" / "w.safetensors"
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_weights(model, path, {"iteration": "7"})
    load_weights(other, path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"iteration": "7"}


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        load_weights(nn.Linear(1, 1), tmp_path / "none.safetensors")


def test_a_damaged_file_is_an_error(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_weights(nn.Linear(300, 2), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(nn.Linear(300, 2), path)


@pytest.mark.parametrize(
    "other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))]
)
def test_another_network_s_weights_are_an_error(tmp_path: Path, other: nn.Module):
    save_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds another network's weights"):
        load_weights(other, tmp_path / "w.safetensors")
