"""Files that take another's place whole: names to write them at, and what a kill leaves of them."""

import glob
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600.0
"""A half of a file that is older than this is nobody's any more: its writer was killed."""
HALF = f".{'[0-9a-f]' * 32}.partial*"
"""What follows a file's name in that of a half of it, as a pattern; see `unused_name`."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write at; where the block ends well, that takes the place of `path`.

    What is written is a file, or a folder where there is none or an empty one. Where the block
    raises, what was written is removed. Parent folders are made. Raises OSError that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unused_name(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        # An error without a number has words of its own, which a file's name would hide.
        if error.errno is not None and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        _remove(partial)


@contextmanager
def folder_beside(half: Path) -> Iterator[Path]:
    """A folder for what writes files under names of its own; removed with them when the block ends.

    half  A name that `replacing` gave: the folder is swept as that is.
    """
    folder = half.with_name(f"{half.name}.d")
    folder.mkdir()
    try:
        yield folder
    finally:
        _remove(folder)


def unused_name(path: Path) -> Path:
    """A name beside `path` that no other process has: PATH.RANDOM.partial."""
    # In the same folder, since a rename is atomic within a file system alone. Random, since a
    # process id comes again, and on another machine of the file system is another process.
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")


def sweep(folder: Path, seconds: float = ABANDONED_SECONDS) -> None:
    """Remove halves of files that killed processes left in a folder, and in those in it.

    seconds  How old they are at least; 0 where nobody else writes in the folder.
    """
    for depth in ("*", "*/*"):
        # Another process sweeps as well, or removes a folder that is looked into.
        with suppress(FileNotFoundError):
            for half in folder.glob(depth + HALF):
                with suppress(FileNotFoundError):
                    if half.lstat().st_mtime <= time.time() - seconds:
                        _remove(half)


def sweep_halves_of(path: Path) -> None:
    """Remove what killed processes left of a file or folder, which nobody else writes now."""
    for half in path.parent.glob(glob.escape(path.name) + HALF):
        _remove(half)


def _remove(half: Path) -> None:
    # It has its name by now, another process removes it as well, or the disk is read-only.
    with suppress(OSError):
        if half.is_dir():
            shutil.rmtree(half)
        else:
            half.unlink()
