"""Weights as files: what is written is read, and what does not fit is named."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from dmd2.io.hashed_tensors import cached, read_hashed, save_hashed
from dmd2.io.replace import sweep_halves_of
from dmd2.io.tensors import load_weights, save_tensors
from dmd2.training import checkpoints


def test_round_trip_is_bit_equal_and_leaves_one_file(tmp_path: Path):
    path = tmp_path / "new" / "w.safetensors"
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_tensors(model.state_dict(), path, {"iteration": "7"})
    load_weights(other, path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"iteration": "7"}


def test_what_a_kill_amid_writing_leaves_is_swept(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    code = (
        "import resource, signal, sys; from pathlib import Path; from torch import nn\n"
        "from dmd2.io.tensors import save_tensors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"  # the system kills at the first byte over
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "save_tensors(nn.Linear(300, 20).state_dict(), Path(sys.argv[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGXFSZ and any(tmp_path.iterdir())
    sweep_halves_of(path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_have_the_permissions_that_umask_says(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        save_tensors(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors")
        save_hashed({"x": torch.ones(1)}, tmp_path / "x.safetensors")
        checkpoints.write({"x": torch.ones(1)}, tmp_path / "1.ckpt", {})
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    names = ("w.safetensors", "x.safetensors", "1.ckpt", "1.json")
    assert found == dict.fromkeys(names, mode)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        load_weights(nn.Linear(1, 1), tmp_path / "none.safetensors")


def test_a_damaged_file_is_an_error(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_tensors(nn.Linear(300, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(nn.Linear(300, 2), path)


def test_a_bit_of_a_hashed_file_that_flips_is_one_error(tmp_path: Path):
    path, x = tmp_path / "a.safetensors", {"x": torch.ones(2, 3), "y": torch.arange(4)}
    save_hashed(x, path, {"next_row": "3"})
    whole = path.read_bytes()
    for i in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors is"):
            read_hashed(path)
    path.write_bytes(whole)
    found, about = read_hashed(path)
    assert about == {"next_row": "3"} and all(torch.equal(found[name], x[name]) for name in x)


@pytest.mark.parametrize("damage", [b"", b"null", bytes(8), b"\xff" * 40])
def test_what_is_kept_is_made_once_and_again_where_it_is_damaged(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
):
    path, made = tmp_path / "new" / "a.safetensors", []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"x": torch.ones(2)}

    for _ in range(2):
        assert torch.equal(cached(path, make)["x"], torch.ones(2))
    assert len(made) == 1
    path.write_bytes(damage)
    assert torch.equal(cached(path, make)["x"], torch.ones(2)) and len(made) == 2
    assert capsys.readouterr().err.count("made again") == 1, "it is said once"


@pytest.mark.parametrize(
    "other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))]
)
def test_another_network_s_weights_are_an_error(tmp_path: Path, other: nn.Module):
    save_tensors(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds another network's weights"):
        load_weights(other, tmp_path / "w.safetensors")
