"""NumPy's files, read without running anything: a file that is none, or that asks for code, is
refused by name.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmd2.io.files import name_in_errors


def open_array(path: Path) -> np.memmap:
    """The array in a .npy file, mapped from it. Raises ValueError for a bad file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _refused(path, error) from error


def write_rows(path: Path, rows: Sequence[int], x: np.ndarray) -> None:
    """Fill rows of the array in a .npy file with x [len(rows), ...]; they are on the disk when this
    returns.

    Exactly their bytes are written. A memory map writes whole pages, and over a network file system
    would undo what
    another machine wrote to the rows beside them.
    """
    array = open_array(path)
    assert x.dtype == array.dtype and x.shape == (len(rows), *array.shape[1:])
    with name_in_errors(path), path.open("r+b") as file:
        for row, value in zip(rows, x, strict=True):
            data, at = value.tobytes(), array.offset + row * value.nbytes
            while data:  # a full disk takes a part, and refuses the rest when that is tried
                num = os.pwrite(file.fileno(), data, at)
                data, at = data[num:], at + num
        os.fsync(file.fileno())


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """These arrays of a .npz file, in this order. Raises ValueError for a bad file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> ValueError:
    reason = str(error).partition(". If you trust")[0]  # NumPy's advice would run what is in there
    return ValueError(f"{path} is refused, and nothing in it was run: {reason}")
