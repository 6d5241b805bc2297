"""Small images, and the same ones packed in every way that is read."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from PIL import Image

torch.set_num_threads(1)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W, 3] or [H, W]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write(path: Path, files: dict[str, bytes]) -> Path:
    """Write the files as a folder, a zip or a tar, as the suffix of `path` says."""
    if path.suffix == "":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                # By ZipInfo, which keeps unsafe names as they are.
                info = zipfile.ZipInfo("-")
                info.filename = name
                archive.writestr(info, data)
        return path
    raw = io.BytesIO()
    with tarfile.open(
        fileobj=raw, mode={".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    ) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(
        zstandard.compress(raw.getvalue()) if path.suffix == ".zst" else raw.getvalue()
    )
    return path


def as_edm(files: dict[str, bytes], labels: dict[str, int] | None) -> dict[str, bytes]:
    """Files as EDM's dataset_tool lays them out; the names keep their order."""
    names = {name: f"{i // 4:05d}/img{i:08d}.png" for i, name in enumerate(sorted(files))}
    listed = None if labels is None else [[names[name], label] for name, label in labels.items()]
    return {names[name]: data for name, data in files.items()} | {
        "dataset.json": json.dumps({"labels": listed}).encode()
    }


@pytest.fixture
def files() -> dict[str, bytes]:
    """Twelve 6x6 colour images of three classes, named in no order."""
    draw = np.random.default_rng(0)
    names = [f"{kind}/{i}.png" for i in (3, 0, 2, 1) for kind in ("dog", "ant", "cat")]
    return {name: png(draw.integers(0, 256, (6, 6, 3), np.uint8)) for name in names}


@pytest.fixture
def pack() -> Callable[[Path, dict[str, bytes]], Path]:
    return write


@pytest.fixture
def edm() -> Callable[[dict[str, bytes], dict[str, int] | None], dict[str, bytes]]:
    return as_edm


@pytest.fixture
def packed(tmp_path: Path, files: dict[str, bytes]) -> Callable[[str], Path]:
    """The files packed in the way that the suffix says."""

    def packed_as(suffix: str) -> Path:
        if suffix == "edm.zip":
            labels = {name: ["ant", "cat", "dog"].index(name.split("/")[0]) for name in files}
            return write(tmp_path / "edm.zip", as_edm(files, labels))
        return write(tmp_path / ("images" if suffix == "folder" else f"images.{suffix}"), files)

    return packed_as
