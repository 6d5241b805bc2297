"""Decode the image files of a source into the rows of arrays, block by block, in threads.

PIL releases Python's lock while it decodes, so threads use all cores.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dmd2.data.preparation.archives import members
from dmd2.data.preparation.blocks import BlockQueue
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.encode import ImageEncoder
from dmd2.data.preparation.layout import Layout
from dmd2.data.preparation.member import Member
from dmd2.data.preparation.picture import kind
from dmd2.io.arrays import write_rows
from dmd2.io.progress import progress_bar

Broken = Literal["stop", "skip"]  # what a file that is no image does


def decode_blocks(
    source: Path,
    decoder: Decoder,
    layout: Layout,
    folder: Path,
    queue: BlockQueue,
    broken: Broken,
    encoder: ImageEncoder,
) -> None:
    """Do the blocks of `queue` until all are done, by this process or another.

    A block is files of `source` in stored order; their rows in the arrays of `folder` are those of
    the `layout`. The result of a block counts the kinds of its images and names its broken files.
    Raises ValueError for a broken file, unless `broken` is "skip".
    """
    places = {
        split: {name: row for row, name in enumerate(names)}
        for split, names in layout.splits.items()
    }
    # The stream is read front to back, to `at`, and begun again where an earlier block is to do:
    # another process died over it. It counts as read to its end before the first block opens it.
    stream: Iterator[Member] = iter(())
    at = queue.num_rows
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar(
            f"decoding {source.name}", queue.num_rows, initial=queue.num_done(), unit=" images"
        ) as bar,
    ):
        for block in queue.free():
            # Files without a row, e.g. of val/ beside test/, are passed over and not even read.
            if block.start < at:
                stream, at = (
                    (member for member in members(source) if member.name in layout.labels),
                    0,
                )
            files = [
                _readable(member) for member in islice(stream, block.start - at, block.stop - at)
            ]
            at = block.stop
            if len(files) < len(block):
                raise ValueError(
                    f"{source} lost files while it was read; leave it alone and start again"
                )
            # Threads share no order, but map gives their results in that of the files.
            images, result = _collect(files, pool.map(partial(_read, decoder), files), broken)
            # A block may lie in both splits, which are arrays of their own.
            for split, place in places.items():
                if rows := {place[name]: x for name, x in images.items() if name in place}:
                    x = encoder(np.stack(list(rows.values())), list(rows))
                    write_rows(folder / f"{split}.npy", list(rows), x)
            # write_rows has synced the block to the disk: now it may count as done.
            queue.record(block, result)
            if not bar.disable:  # num_done lists the whole folder
                bar.update(queue.num_done() - bar.n)


def _readable(member: Member) -> Member:
    """A member that threads may read at any time; one that must be read in turn is read now."""
    if member.random_access:
        return member
    # A block of them is in memory at once, see BLOCK in prepare.py.
    data = member.read()
    return Member(member.name, lambda: data, random_access=True)


def _read(decoder: Decoder, member: Member) -> tuple[np.ndarray, str] | ValueError:
    """Pixels and kind of an image; the error, not raised, where the file is broken."""
    data = member.read()
    try:
        return decoder(data, member.name), kind(data)
    except ValueError as error:
        # Raised by the caller for the first broken file in stored order, not by the fastest thread.
        return error


def _collect(
    files: Sequence[Member], reads: Iterable[tuple[np.ndarray, str] | ValueError], broken: Broken
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The pixels of the images in a block, by name; and the result of the block.

    Raises ValueError for a file that is no image, unless `broken` is "skip".
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
