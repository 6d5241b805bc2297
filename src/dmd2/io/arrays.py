"""NumPy files: .npy memory-mapped, .npz read, without unpickling; rows written in place."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.io.files import name_in_errors, refused


class MappedArray(np.memmap):
    """A memory-mapped array that looks at its file's size before it is read.

    Indexing raises OSError where the file has become shorter: what is cut off would end the process
    by SIGBUS when it is read.
    """

    def __getitem__(self, index: Any) -> Any:
        """The rows; those that are copied out of the file as a plain array."""
        mapped = self._mmap  # type: ignore[attr-defined]
        if mapped is not None and mapped.size() < len(mapped):
            raise OSError(
                f"{self.filename} shrank from {len(mapped)} to {mapped.size()} bytes while it was "
                "read; put it back, and type the same command again"
            )
        rows = super().__getitem__(index)
        is_copy = isinstance(rows, MappedArray) and rows._mmap is None  # type: ignore[attr-defined]
        return rows.view(np.ndarray) if is_copy else rows


def open_array(path: Path) -> MappedArray:
    """Memory-map the array of a .npy file, read-only.

    Raises ValueError that names a file which is damaged or holds Python objects.
    """
    with _damage_named(path):
        # An array of objects is a pickle, and reading it could run any code.
        return np.load(path, mmap_mode="r", allow_pickle=False).view(MappedArray)


def write_rows(path: Path, rows: Sequence[int], x: np.ndarray) -> None:
    """Write x [len(rows), ...] to rows of the array in a .npy file; on disk when this returns.

    Raises OSError that names the file, e.g. where the disk is full.
    """
    array = open_array(path)
    assert x.dtype == array.dtype and x.shape == (len(rows), *array.shape[1:])
    # `pwrite` in place of a writable memory map: that writes whole pages, and over a network file
    # system it would undo what another machine wrote to the neighbouring rows. A full disk would
    # end the process by SIGBUS, too.
    with name_in_errors(path), path.open("r+b") as file:
        for row, value in zip(rows, x, strict=True):
            data, offset = value.tobytes(), array.offset + row * value.nbytes
            # A disk that gets full takes a part of the bytes, and refuses only the next call.
            while data:
                num = os.pwrite(file.fileno(), data, offset)
                data, offset = data[num:], offset + num
        os.fsync(file.fileno())


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of a .npz file, in the order of `names`.

    Raises ValueError that names a file which is damaged, lacks one, or holds Python objects.
    """
    with _damage_named(path), np.load(path, allow_pickle=False) as file:
        return [file[name] for name in names]


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # with the file's name
        raise
    # Of a damaged header Python's own parser complains, of a damaged archive zipfile and zlib; of a
    # size that is none, memory; a plain .npy under an archive's name is no context manager.
    except Exception as error:
        # NumPy goes on to advise `allow_pickle=True`, which would run what is in there.
        words = str(error).partition(". If you trust")[0]
        raise refused(path, words) from error
