"""Files that take another's place whole: names to write them at, and what a kill leaves of them."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600.0
"""A half of a file that is older than this is nobody's any more: its writer was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write at; where the block ends well, that takes the place of `path`.

    Where it raises, what was written is removed. Parent folders are made. Raises OSError that
    names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unused_name(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # it has its name, or the disk is read-only by now
            partial.unlink()


def unused_name(path: Path) -> Path:
    """A name beside `path` that no other process has: PATH.RANDOM.partial."""
    # In the same folder, since a rename is atomic within a file system alone. Random, since a
    # process id comes again, and on another machine of the file system is another process.
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")


def sweep(folder: Path, seconds: float = ABANDONED_SECONDS) -> None:
    """Remove halves of files that killed processes left in a folder, and in those in it.

    seconds  How old they are at least; 0 where nobody else writes in the folder.
    """
    for depth in ("*.partial*", "*/*.partial*"):
        for path in folder.glob(depth):
            with suppress(OSError):  # another process sweeps as well, or it is no file of ours
                if not path.is_dir() and path.lstat().st_mtime <= time.time() - seconds:
                    path.unlink()
