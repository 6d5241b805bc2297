"""Decode a source once into a prepared folder, shared by any number of processes and resumable.

While it is at work, PATH.partial holds the arrays and the queue of blocks
(`dmd2.data.preparation.blocks`). The arrays are renamed to PATH when they are complete, so a folder
of that name is never half done.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

from numpy.lib.format import open_memmap

from dmd2.data.preparation.archives import identity
from dmd2.data.preparation.blocks import BlockQueue
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.decode_blocks import Broken, decode_blocks
from dmd2.data.preparation.encode import ImageEncoder, PixelEncoder
from dmd2.data.preparation.finish import finish
from dmd2.data.preparation.folder import is_prepared
from dmd2.data.preparation.layout import Layout
from dmd2.io.files import discard, key_of, locked

FORMAT = 3  # Raise it when decoding changes: every old cache is then another key.
BLOCK = 256  # Files in memory at once, and the most of a process's work that a kill loses.


def prepare(
    source: Path,
    layout: Layout,
    decoder: Decoder,
    folder: Path,
    broken: Broken = "stop",
    encoder: ImageEncoder | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Decode the images of `layout` into `folder`; return at once where that is prepared already.

    source   The archive or folder of the images.
    layout   Their rows, labels and class names.
    decoder  From the bytes of a file to pixels.
    folder   What to make. Processes that prepare the same one share its blocks.
    broken   "stop" raises ValueError at a file that is no image; "skip" leaves out its row, and
             names it in the manifest.
    encoder  How images are stored; None stores pixels.
    options  What the layout was made with, for the manifest.

    Raises ValueError where `folder` holds anything else, or was begun with other options, and where
    the source changes meanwhile.
    """
    if broken not in get_args(Broken):
        raise ValueError(f"broken must be {' or '.join(get_args(Broken))}, got {broken}")
    check_place(source, folder)
    # Beside the folder, so that the last step is a rename within one file system.
    unfinished = folder.with_name(f"{folder.name}.partial")
    arrays, encoder = unfinished / "arrays", encoder or PixelEncoder(decoder)
    before = identity(source)
    about = {"source": before, "decoder": asdict(decoder), **(options or {}), **encoder.about()}
    # All that rows and their values depend on: work begun otherwise is not continued.
    plan, num_files = key_of(FORMAT, about, asdict(layout)), len(layout.train) + len(layout.test)
    with locked(folder):
        # What a process left that was killed between the rename and discard.
        if is_prepared(folder):
            return discard(unfinished)
        create = partial(_create, layout, arrays, encoder)
        queue = BlockQueue(unfinished / "progress", plan, num_files, BLOCK, create)
    # Outside the lock, for here the processes share the work.
    decode_blocks(source, decoder, layout, arrays, queue, broken, encoder)
    with locked(folder):
        # Whoever comes first finishes it; the others find the folder.
        if not is_prepared(folder):
            if (now := identity(source)) != before:
                raise ValueError(
                    f"{source} changed while it was read, from {before} to {now}; remove "
                    f"{unfinished}, leave the source alone and start again"
                )
            finish(layout, arrays, queue.results(), {"format": FORMAT, **about})
            # A rename is atomic: who sees the folder sees all of it.
            os.rename(arrays, folder)
            discard(unfinished)


def check_place(source: Path, folder: Path) -> None:
    """Raise ValueError where a folder to make lies in the source, or holds other things."""
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{folder} lies in the source {source}; name one beside it: out=DIR")
    if folder.exists() and not is_prepared(folder) and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other things; choose another place for what is prepared")


def _create(layout: Layout, folder: Path, encoder: ImageEncoder) -> None:
    """Arrays of zeros in `folder`, a row for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in layout.splits.items():
        open_memmap(folder / f"{split}.npy", "w+", encoder.dtype, (len(names), *encoder.shape))
