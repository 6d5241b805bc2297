"""Decode a source once into a prepared folder; begun again after a kill, it goes on where it was.

Meanwhile PATH.partial holds the arrays and progress.json, which counts the files whose rows are written.
It is renamed when whole, so PATH is never half done.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from dmd2.arrays import open_array
from dmd2.data.archives import Member, identity, members
from dmd2.data.decode import Decoder, kind
from dmd2.data.layout import Layout
from dmd2.data.prepared import is_prepared, write_manifest
from dmd2.data.progress import FILE as PROGRESS
from dmd2.data.progress import Progress
from dmd2.files import alone, key_of

FORMAT = 2  # Raise it when decoding changes: every old cache is then another key.
BLOCK = 256  # Files in memory at once, and the most that a kill loses.

Broken = Literal["stop", "skip"]


class Kept(Protocol):
    """What is kept of decoded images: an array [N, *shape] of a dtype, and what a manifest says of it."""

    dtype: type
    shape: tuple[int, ...]

    def about(self) -> dict[str, Any]:
        """What makes it what it is, as JSON values, beside the decoder."""
        ...

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """What is kept of pixels uint8 [B, C, H, W] at these rows."""
        ...


class Pixels:
    """The pixels themselves."""

    dtype: type = np.uint8

    def __init__(self, decoder: Decoder) -> None:
        self.shape: tuple[int, ...] = (decoder.channels, decoder.resolution, decoder.resolution)

    def about(self) -> dict[str, Any]:
        return {}

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        return images


def plan_of(*about: Any) -> str:
    """A short hash of plain values: of what is prepared, and how."""
    return key_of(FORMAT, *about)


def prepare(
    source: Path, layout: Layout, decoder: Decoder, folder: Path, broken: Broken = "stop", kept: Kept | None = None
) -> None:
    """Decode the images of `layout` into `folder`, unless that is prepared already, and keep their pixels or `kept`.

    A file that is no image ends it (`broken="stop"`), or loses its row and is named in the manifest
    ("skip"). Of several processes that prepare one folder, one works and the others wait for it.
    """
    if broken not in get_args(Broken):
        raise ValueError(f"broken must be {' or '.join(get_args(Broken))}, got {broken}")
    if folder.exists() and not is_prepared(folder) and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other things; choose another place for what is prepared")
    unfinished = folder.with_name(f"{folder.name}.partial")
    kept = kept or Pixels(decoder)
    with alone(folder):
        unfinished.mkdir(exist_ok=True)
        if is_prepared(folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            return
        about = {"source": identity(source), "decoder": asdict(decoder), **kept.about()}
        plan = plan_of(about, asdict(layout))
        progress = Progress.read(unfinished, plan) or _begun(unfinished, layout, kept, Progress(plan))
        _decode(source, decoder, layout, unfinished, progress, broken, kept)
        _finish(layout, unfinished, progress, about)
        os.rename(unfinished, folder)
        (folder / PROGRESS).unlink()


def _begun(folder: Path, layout: Layout, kept: Kept, progress: Progress) -> Progress:
    """Arrays of zeros, and the progress that says so."""
    for split, names in layout.splits.items():
        open_memmap(folder / f"{split}.npy", "w+", kept.dtype, (len(names), *kept.shape))
    progress.write(folder)
    return progress


def _decode(
    source: Path, decoder: Decoder, layout: Layout, folder: Path, progress: Progress, broken: Broken, kept: Kept
) -> None:
    """One pass through the rest of the source, each image to its own row."""
    arrays = {split: open_array(folder / f"{split}.npy", "r+") for split in layout.splits}
    place = {name: (split, row) for split, names in layout.splits.items() for row, name in enumerate(names)}
    stream = islice((member for member in members(source) if member.name in place), progress.num_read, None)
    about = {"desc": f"decoding {source.name}", "unit": " images", "delay": 2, "mininterval": 1}
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(place), initial=progress.num_read, **about) as bar,
    ):
        while block := [_lasting(member) for member in islice(stream, BLOCK)]:
            images: dict[str, dict[int, np.ndarray]] = {split: {} for split in arrays}
            for member, found in zip(block, pool.map(partial(_read, decoder), block), strict=True):
                if not isinstance(found, ValueError):
                    split, row = place[member.name]
                    images[split][row], what = found
                    progress.kinds[what] = progress.kinds.get(what, 0) + 1
                elif broken == "skip":
                    progress.broken.append(member.name)
                else:
                    raise ValueError(f"{found}; dmd2 prepare leaves such files out with recipe.broken=skip")
            for split, x in arrays.items():
                if rows := list(images[split]):
                    x[rows] = kept(np.stack(list(images[split].values())), rows)
                x.flush()
            progress.num_read += len(block)
            progress.write(folder)
            bar.update(len(block))
    if progress.num_read != len(place):
        raise ValueError(f"{source} lost files while it was read; leave it alone and start again")


def _lasting(member: Member) -> Member:
    """The member, or what it holds now: a tar gives its files in turn alone."""
    if member.lasting:
        return member
    data = member.read()
    return Member(member.name, lambda: data, lasting=True)


def _read(decoder: Decoder, member: Member) -> tuple[np.ndarray, str] | ValueError:
    """Pixels and kind of an image, or why there are none."""
    data = member.read()
    try:
        return decoder(data, member.name), kind(data)
    except ValueError as error:
        return error


def _finish(layout: Layout, folder: Path, progress: Progress, about: dict[str, Any]) -> None:
    """Labels, no rows of broken files, and the manifest; done again it changes nothing."""
    dropped = set(progress.broken)
    for split, names in layout.splits.items():
        kept = [row for row, name in enumerate(names) if name not in dropped]
        _keep(folder / f"{split}.npy", kept, len(names))
        np.save(folder / f"{split}_labels.npy", np.array([layout.labels[names[row]] for row in kept], np.int64))
    if dropped >= set(layout.train):
        raise ValueError(f"all {len(layout.train)} images to train on are broken, e.g. {layout.train[0]}")
    report = {"kinds": dict(sorted(progress.kinds.items())), "broken": progress.broken}
    write_manifest(folder, layout.class_names, {"format": FORMAT, **about, **report})


def _keep(path: Path, rows: Sequence[int], num_rows: int) -> None:
    """Write an array again with some of its `num_rows` rows; an array that is short already is left alone."""
    x = open_array(path)
    if len(rows) == num_rows or len(x) == len(rows):
        return
    kept: np.memmap = open_memmap(path.with_suffix(".kept"), "w+", x.dtype, (len(rows), *x.shape[1:]))
    for start in range(0, len(rows), BLOCK):
        kept[start : start + BLOCK] = x[rows[start : start + BLOCK]]
    kept.flush()
    path.with_suffix(".kept").replace(path)
