"""Decode a source once: memory-mapped pixels, labels and a manifest in a folder named by what they are.

<cache>/<key>/  train.npy uint8 [N, C, H, W]  train_labels.npy int64 [N]  (test alike)  manifest.json
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from dmd2.data.archives import Member, identity, members
from dmd2.data.decode import Decoder
from dmd2.data.layout import Layout, lay_out
from dmd2.data.split import Split

FORMAT = 1  # Raise it when decoding changes: every old cache is then another key.
BLOCK = 256  # Files in memory at once.


def cache_key(source: Path, decoder: Decoder, test_fraction: float) -> str:
    """Hash of the source's identity and of all that is done to it."""
    about = [FORMAT, identity(source), asdict(decoder), test_fraction]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def decode_once(source: Path, decoder: Decoder, test_fraction: float, folder: Path) -> None:
    """Decode `source` into `folder` unless that exists already.

    Written beside it and renamed when whole, so `folder` is never half done; of several processes that
    decode at once one keeps its work and the others throw theirs away.
    """
    if folder.exists():
        return
    layout = lay_out(source, test_fraction)
    partial = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        _decode(source, decoder, layout, partial)
        manifest = {"source": identity(source), "decoder": asdict(decoder), "class_names": layout.class_names}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_cached(folder: Path) -> tuple[Split, Split, list[str]]:
    """Train split, test split and class names of a decoded source, as read-only memmaps."""
    train, test = (
        Split(np.load(folder / f"{name}.npy", mmap_mode="r"), np.load(folder / f"{name}_labels.npy"))
        for name in ("train", "test")
    )
    return train, test, json.loads((folder / "manifest.json").read_text())["class_names"]


def _decode(source: Path, decoder: Decoder, layout: Layout, folder: Path) -> None:
    """One pass through the source, each image to its own row."""
    place: dict[str, tuple[np.ndarray, int]] = {}
    for split, names in (("train", layout.train), ("test", layout.test)):
        shape = (len(names), decoder.channels, decoder.resolution, decoder.resolution)
        x: np.ndarray = open_memmap(folder / f"{split}.npy", "w+", np.uint8, shape)
        labels = np.array([layout.labels[name] for name in names], np.int64)
        np.save(folder / f"{split}_labels.npy", labels)
        place |= {name: (x, row) for row, name in enumerate(names)}
    num_images = len(place)
    stream = (member for member in members(source) if member.name in place)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=num_images, desc=f"decoding {source.name}", unit=" images", delay=2, mininterval=1) as bar,
    ):
        for names, data in _blocks(stream):
            for name, pixels in zip(names, pool.map(decoder, data, names), strict=True):
                x, row = place.pop(name)
                x[row] = pixels
            bar.update(len(names))
    if place:
        raise ValueError(f"{source} lost {min(place)} while it was read; leave it alone and start again")


def _blocks(stream: Iterator[Member]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Names and bytes of the next few files; read here, since a tar gives its files in turn alone."""
    while block := [(member.name, member.read()) for member in islice(stream, BLOCK)]:
        yield [name for name, _ in block], [data for _, data in block]
