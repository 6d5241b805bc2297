"""Files that hold code, wherever the project reads files: refused by name, and not executed.

Foreign checkpoints have tests of their own, in weights/test_pickles.py and weights/test_authors.py.
"""

import ast
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmd2.data.pairs import PairStore, PairWriter
from dmd2.data.preparation.folder import open_prepared, write_manifest
from dmd2.io.files import write_json
from dmd2.io.progress import hashed
from dmd2.io.tensors import load_weights, names_in, read_metadata
from dmd2.metrics.detectors import Flatten
from dmd2.metrics.frechet import FrechetDistance, PublishedFrechetDistance
from dmd2.metrics.suite import MetricSuite
from dmd2.runs import cached
from dmd2.training.checkpoints import load, write
from dmd2.weights.authors import read_checkpoint

SRC = Path(__file__).parents[1] / "src"
POINTS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))


class Code:
    """Unpickled, it makes the directory `ran` in the working directory."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ran",)


def objects(num: int) -> np.ndarray:
    return np.array([Code()] * num, dtype=object)


def checkpoint(path: Path) -> None:
    write({"state_dict": {"weight": Code()}}, path, {})
    load(path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code()))
    write_json(path.with_suffix(".json"), {"size": path.stat().st_size, "sha256": hashed(path)})
    load(path)


def weights(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.write_bytes(pickle.dumps(Code()))
        read(path)

    return plant


def prepared(path: Path) -> None:
    """Arrays and a manifest that vouches for them."""
    for split in ("train", "test"):
        np.save(path.parent / f"{split}.npy", np.zeros((2, 1, 2, 2), np.uint8))
        np.save(path.parent / f"{split}_labels.npy", np.zeros(2, np.int64))
    np.save(path, objects(2), allow_pickle=True)
    write_manifest(path.parent, [], {})
    open_prepared(path.parent)


def pairs(path: Path) -> None:
    writer = PairWriter(path.parent, 2, (2,), "float16", "a", at_once=2)
    writer.write(next(writer.free()), torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2))
    writer.finish()
    np.save(path, objects(2), allow_pickle=True)
    PairStore(path.parent)


def statistics(path: Path) -> None:
    np.savez(path, mu=objects(2), sigma=np.eye(2))
    PublishedFrechetDistance("points", "fid", path).set_reference(POINTS, POINTS)


class Kept(Flatten):
    """A detector whose features are worth keeping."""

    def key(self) -> str:
        return "kept"


def features(path: Path) -> None:
    """What a suite kept, put in another's place."""
    for _ in range(2):
        suite = MetricSuite(
            {"points": Kept()}, {"fid": FrechetDistance("points", "fid")}, cache=path.parent
        )
        suite.fit(POINTS, torch.zeros(50), POINTS, torch.zeros(50))
        (found,) = path.parent.glob("*.safetensors")
        found.write_bytes(pickle.dumps(Code()))


def references(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code()))
    cached._cached("data", path, dict)


READERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a run's checkpoint": ("00000001.ckpt", checkpoint),
    "a pickle called a checkpoint": ("00000001.ckpt", bare_pickle),
    "weights of a network": (
        "student.safetensors",
        weights(partial(load_weights, torch.nn.Linear(1, 1))),
    ),
    "names of weights": ("critic.safetensors", weights(names_in)),
    "what weights say of themselves": ("teacher.safetensors", weights(read_metadata)),
    "prepared images": ("train.npy", prepared),
    "prepared labels": ("test_labels.npy", prepared),
    "pairs": ("images.npy", pairs),
    "published statistics": ("statistics.npz", statistics),
}
MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "kept features": (".safetensors", features),
    "kept references": ("references.json", references),
}
"""What is only kept to save time is made again."""


@pytest.mark.parametrize("what", READERS)
def test_a_file_that_holds_code_is_refused_by_name_and_not_run(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, read = READERS[what]
    with pytest.raises(ValueError, match=name) as refused:
        read(tmp_path / name)
    assert not Path("ran").exists()
    assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_kept_and_holds_code_is_made_again_and_named(
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, read = MAKERS[what]
    read(tmp_path / name)
    assert not Path("ran").exists()
    said = capsys.readouterr().err
    assert name in said and "made again" in said and "weights_only" not in said


def calls(tree: ast.AST) -> list[tuple[str, dict[str, str]]]:
    """The calls in a file, e.g. "torch.load", with their keyword arguments as source text."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        (ast.unparse(n.func), {k.arg or "**": ast.unparse(k.value) for k in n.keywords})
        for n in found
    ]


def test_nothing_is_read_in_a_way_that_runs_it() -> None:
    for path in SRC.rglob("*.py"):
        for name, options in calls(ast.parse(path.read_text())):
            assert name not in (
                "pickle.load",
                "pickle.loads",
                "dill.load",
                "joblib.load",
                "yaml.load",
            ), path
            assert name != "torch.load" or options["weights_only"] == "True", path
            assert name != "np.load" or options["allow_pickle"] == "False", path
            if name.endswith("Model.from_pretrained"):
                assert options["use_safetensors"] == "True", path


@pytest.mark.parametrize("content", [{"a": Code()}, {"a": torch.zeros(1), "b": os.system}])
def test_a_refusal_gives_no_advice_to_run_the_file(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(
        ValueError, match=r"x\.bin is refused, and nothing in it was run"
    ) as refused:
        read_checkpoint(tmp_path / "x.bin")
    assert "weights_only" not in str(refused.value) and "safe_globals" not in str(refused.value)
    assert "it calls posix." in str(refused.value)
