"""NumPy's files, read without running anything: a file that is none, or that asks for code, is refused by name."""

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np


def open_array(path: Path, mode: Literal["r", "r+"] = "r") -> np.memmap:
    """The array in a .npy file, mapped from it. Raises ValueError for a bad file."""
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _refused(path, error) from error


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
