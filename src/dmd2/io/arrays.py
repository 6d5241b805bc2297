"""NumPy files: .npy memory-mapped, .npz read, without unpickling; rows written in place."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmd2.io.files import name_in_errors, refused


def open_array(path: Path) -> np.memmap:
    """Memory-map the array of a .npy file, read-only.

    Raises ValueError that names a file which is damaged or holds Python objects.
    """
    try:
        # An array of objects is a pickle, and reading it could run any code.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _refused(path, error) from error


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
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    # TypeError: a plain .npy under this name gives an array, which is no context manager.
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> ValueError:
    # NumPy goes on to advise `allow_pickle=True`, which would run what is in there.
    return refused(path, str(error).partition(". If you trust")[0])
