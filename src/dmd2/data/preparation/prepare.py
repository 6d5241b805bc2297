"""Decode a source once into a prepared folder, by any number of processes; after a kill it goes on
where it was.

Meanwhile PATH.partial holds the arrays, and which blocks of files have their rows there
(`dmd2.data.preparation.blocks`). The arrays get the name PATH when they are whole, so that is never
half done.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from dmd2.data.preparation.archives import Member, identity, members
from dmd2.data.preparation.blocks import Progress
from dmd2.data.preparation.decode import Decoder, kind
from dmd2.data.preparation.folder import is_prepared, write_manifest
from dmd2.data.preparation.layout import Layout
from dmd2.distributed.process_group import rank
from dmd2.io.arrays import open_array, write_rows
from dmd2.io.files import discard, key_of, locked

FORMAT = 2  # Raise it when decoding changes: every old cache is then another key.
BLOCK = 256  # Files in memory at once, and the most of a process's work that a kill loses.

Broken = Literal["stop", "skip"]


class Kept(Protocol):
    """What is kept of decoded images: an array [N, *shape] of a dtype, and what a manifest says of
    it.
    """

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


def prepare(
    source: Path,
    layout: Layout,
    decoder: Decoder,
    folder: Path,
    broken: Broken = "stop",
    kept: Kept | None = None,
) -> None:
    """Decode the images of `layout` into `folder`, unless that is prepared already, and keep their
    pixels or `kept`.

    A file that is no image ends it (`broken="stop"`), or loses its row and is named in the manifest
    ("skip"). Processes that prepare one folder share its blocks, and one of them finishes it.
    """
    if broken not in get_args(Broken):
        raise ValueError(f"broken must be {' or '.join(get_args(Broken))}, got {broken}")
    if folder.exists() and not is_prepared(folder) and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other things; choose another place for what is prepared")
    unfinished = folder.with_name(f"{folder.name}.partial")
    arrays, kept = unfinished / "arrays", kept or Pixels(decoder)
    about = {"source": identity(source), "decoder": asdict(decoder), **kept.about()}
    plan, num_files = key_of(FORMAT, about, asdict(layout)), len(layout.train) + len(layout.test)
    with locked(folder):
        if is_prepared(folder):
            return discard(unfinished)
        progress = Progress(
            unfinished / "progress", plan, num_files, BLOCK, partial(_begin, layout, arrays, kept)
        )
    _decode(source, decoder, layout, arrays, progress, broken, kept)
    with locked(folder):
        if not is_prepared(folder):
            _finish(layout, arrays, progress, about)
            os.rename(arrays, folder)
            discard(unfinished)


def _begin(layout: Layout, folder: Path, kept: Kept) -> None:
    """Arrays of zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in layout.splits.items():
        open_memmap(folder / f"{split}.npy", "w+", kept.dtype, (len(names), *kept.shape))


def _decode(
    source: Path,
    decoder: Decoder,
    layout: Layout,
    folder: Path,
    progress: Progress,
    broken: Broken,
    kept: Kept,
) -> None:
    """Go through the source as often as it takes for all blocks to be done: once, unless another
    process dies.
    """
    places = {
        split: {name: row for row, name in enumerate(names)}
        for split, names in layout.splits.items()
    }
    stream: Iterator[Member] = iter(())
    at = progress.num_rows  # as if read to its end: the first block begins it
    about = {"desc": f"decoding {source.name}", "unit": " images", "delay": 2, "mininterval": 1}
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            total=progress.num_rows, initial=progress.num_done(), disable=rank() > 0, **about
        ) as bar,
    ):
        for block in progress.free():
            if block.start < at:
                stream, at = (
                    (member for member in members(source) if member.name in layout.labels),
                    0,
                )
            files = [
                _lasting(member) for member in islice(stream, block.start - at, block.stop - at)
            ]
            at = block.stop
            if len(files) < len(block):
                raise ValueError(
                    f"{source} lost files while it was read; leave it alone and start again"
                )
            images, found = _images(files, pool.map(partial(_read, decoder), files), broken)
            for split, place in places.items():
                if rows := {place[name]: x for name, x in images.items() if name in place}:
                    x = kept(np.stack(list(rows.values())), list(rows))
                    write_rows(folder / f"{split}.npy", list(rows), x)
            progress.record(block, found)
            if not bar.disable:  # it reads the whole folder
                bar.update(progress.num_done() - bar.n)


def _images(
    files: Sequence[Member], reads: Iterable[tuple[np.ndarray, str] | ValueError], broken: Broken
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The pixels of those of a block's files that are images, by name, and what is to be remembered
    of all.
    """
    images, kinds, left_out = dict[str, np.ndarray](), Counter[str](), list[str]()
    for member, read in zip(files, reads, strict=True):
        if not isinstance(read, ValueError):
            images[member.name], what = read
            kinds[what] += 1
        elif broken == "skip":
            left_out.append(member.name)
        else:
            raise ValueError(f"{read}; dmd2 prepare leaves such files out with recipe.broken=skip")
    return images, {"kinds": kinds, "broken": left_out}


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
    kinds, broken = Counter[str](), list[str]()
    for found in progress.found():
        kinds.update(found["kinds"])
        broken += found["broken"]
    dropped = set(broken)
    for split, names in layout.splits.items():
        kept = [row for row, name in enumerate(names) if name not in dropped]
        _keep(folder / f"{split}.npy", kept, len(names))
        np.save(
            folder / f"{split}_labels.npy",
            np.array([layout.labels[names[row]] for row in kept], np.int64),
        )
    if dropped >= set(layout.train):
        raise ValueError(
            f"all {len(layout.train)} images to train on are broken, e.g. {layout.train[0]}"
        )
    report = {"kinds": dict(sorted(kinds.items())), "broken": broken}
    write_manifest(folder, layout.class_names, {"format": FORMAT, **about, **report})


def _keep(path: Path, rows: Sequence[int], num_rows: int) -> None:
    """Write an array again with some of its `num_rows` rows; an array that is short already is left
    alone.
    """
    x = open_array(path)
    if len(rows) == num_rows or len(x) == len(rows):
        return
    kept: np.memmap = open_memmap(
        path.with_suffix(".kept"), "w+", x.dtype, (len(rows), *x.shape[1:])
    )
    for start in range(0, len(rows), BLOCK):
        kept[start : start + BLOCK] = x[rows[start : start + BLOCK]]
    kept.flush()
    path.with_suffix(".kept").replace(path)
