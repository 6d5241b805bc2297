"""A prepared folder: decoded images as memory-mapped arrays, and a manifest that says what they
must be.

train.npy uint8 [N, C, H, W]  train_labels.npy int64 [N]  (test alike)  manifest.json

Opening compares sizes. Hashes are compared where an array is not older than the manifest, whose
time of change so says when the arrays were last known to be right: what is written later is found,
and a folder that nobody touched opens at once.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.data.split import Split
from dmd2.io.arrays import open_array
from dmd2.io.files import sha256, write_json

ARRAYS = ("train.npy", "train_labels.npy", "test.npy", "test_labels.npy")
MANIFEST = "manifest.json"


def is_prepared(folder: Path) -> bool:
    """Whether a folder has a manifest of ours."""
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; raises ValueError where it is none, or its own hash does not fit it."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        intact = manifest["content"] == _content(manifest["arrays"], manifest["class_names"])
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise ValueError(
            f"{path} is no manifest of a prepared folder, or was altered; {_again(folder)}"
        )
    return manifest


def write_manifest(folder: Path, class_names: list[str], about: Mapping[str, Any]) -> None:
    """Vouch for the arrays in `folder`; the last thing that is written there."""
    arrays = {
        name: {"num_bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in ARRAYS
    }
    content = {"content": _content(arrays, class_names)}
    write_json(
        folder / MANIFEST, {**about, **content, "arrays": arrays, "class_names": class_names}
    )


def open_prepared(folder: Path) -> tuple[Split, Split, list[str]]:
    """Train split, test split and class names; pixels are read-only memmaps.

    Raises ValueError that names an array whose size is not the manifest's, FileNotFoundError a
    missing one.
    """
    manifest = read_manifest(folder)
    for name in ARRAYS:
        size, expected = _stat(folder / name).st_size, manifest["arrays"][name]["num_bytes"]
        if size != expected:
            raise ValueError(
                f"{folder / name} has {size} bytes, its manifest says {expected}; {_again(folder)}"
            )
    train, test = (
        Split(
            open_array(folder / f"{name}.npy"), np.array(open_array(folder / f"{name}_labels.npy"))
        )
        for name in ("train", "test")
    )
    return train, test, manifest["class_names"]


def check(folder: Path) -> None:
    """Hash every array and, if all are right, note the time in the manifest's date.

    Raises ValueError that names the first array that differs.
    """
    manifest = read_manifest(folder)
    for name in ARRAYS:
        _stat(folder / name)
        if sha256(folder / name) != manifest["arrays"][name]["sha256"]:
            raise ValueError(
                f"{folder / name} was altered, its hash is not the manifest's; {_again(folder)}"
            )
    with suppress(OSError):  # A read-only folder is hashed each time.
        (folder / MANIFEST).touch()


def check_if_changed(folder: Path) -> None:
    """`check`, if an array may have been written after the manifest, e.g. in a copy."""
    vouched = (folder / MANIFEST).stat().st_mtime_ns
    if any(_stat(folder / name).st_mtime_ns >= vouched for name in ARRAYS):
        check(folder)


def _stat(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {_again(path.parent)}")
    return path.stat()


def _content(arrays: Mapping[str, Mapping[str, Any]], class_names: list[str]) -> str:
    """One hash of all that a data module sees."""
    about = [[arrays[name]["sha256"] for name in ARRAYS], class_names]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _again(folder: Path) -> str:
    return f"remove {folder} and prepare it again"
