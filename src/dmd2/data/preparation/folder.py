"""A prepared folder: memory-mapped arrays, and a manifest with their sizes and SHA-256 hashes.

    train.npy         uint8 [N, C, H, W] of pixels, or float16 [N, C, h, w] of latents
    train_labels.npy  int64 [N]
    test.npy, test_labels.npy, of the same kind
    manifest.json

Opening compares sizes; hashes are compared where an array may have changed (`dmd2.io.vouched`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.data.split import Split
from dmd2.io.arrays import open_array
from dmd2.io.files import read_hashed_json, write_hashed_json
from dmd2.io.vouched import check_changed, check_hashes, check_sizes, hashes_of

# The hash `content` of a manifest takes them in this order.
ARRAYS = ("train.npy", "train_labels.npy", "test.npy", "test_labels.npy")
MANIFEST = "manifest.json"


def is_prepared(folder: Path) -> bool:
    """Whether a folder is finished: it then has a manifest."""
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; raises ValueError where it is not one, or was altered."""
    path = folder / MANIFEST
    try:
        manifest = read_hashed_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {_again(folder)}") from error
    if not manifest.keys() >= {"content", "arrays", "class_names"}:  # e.g. of pairs
        raise ValueError(f"{path} is no manifest of a prepared folder; name another folder")
    return manifest


def write_manifest(folder: Path, class_names: list[str], about: Mapping[str, Any]) -> None:
    """Hash the arrays in `folder` and write the manifest, which makes it a prepared folder.

    about  What else the manifest says, e.g. source and decoder.
    """
    arrays = hashes_of(folder, ARRAYS)
    # The contents' own name: the same wherever the folder lies and however it was made.
    content = {"content": _content(arrays, class_names)}
    write_hashed_json(
        folder / MANIFEST, {**about, **content, "arrays": arrays, "class_names": class_names}
    )


def open_prepared(folder: Path) -> tuple[Split, Split, list[str]]:
    """Train split, test split and class names; samples are read-only memory maps.

    Raises FileNotFoundError that names a missing array, and ValueError that names one of another
    size than the manifest's.
    """
    manifest = read_manifest(folder)
    # Sizes find a copy that broke off; hashes would take minutes, `check` compares them.
    with _again_in_errors(folder):
        check_sizes(folder, manifest["arrays"])
    # Labels are small, and batches read all of them: they are copied to memory.
    train, test = (
        Split(
            open_array(folder / f"{name}.npy"), np.array(open_array(folder / f"{name}_labels.npy"))
        )
        for name in ("train", "test")
    )
    return train, test, manifest["class_names"]


def check(folder: Path) -> None:
    """Compare the hash of every array; if all are right, set the manifest's time to now.

    Raises ValueError that names the first array that differs.
    """
    manifest = read_manifest(folder)
    with _again_in_errors(folder):
        check_hashes(folder, manifest["arrays"], folder / MANIFEST)


def check_if_changed(folder: Path) -> None:
    """`check`, if an array may have been written after the manifest, e.g. in a copy."""
    manifest = read_manifest(folder)
    with _again_in_errors(folder):
        check_changed(folder, manifest["arrays"], folder / MANIFEST)


@contextmanager
def _again_in_errors(folder: Path) -> Iterator[None]:
    """Inside, what is missing or altered is named with what to do."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; {_again(folder)}") from error


def _content(arrays: Mapping[str, Mapping[str, Any]], class_names: list[str]) -> str:
    """One hash of all that a data module reads: the arrays and the class names."""
    about = [[arrays[name]["sha256"] for name in ARRAYS], class_names]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _again(folder: Path) -> str:
    return f"remove {folder} and prepare it again"
