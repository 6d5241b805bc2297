"""Rows of a .npy file: only their bytes are written, and a full disk is an error."""

import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from dmd2.io.arrays import open_array, write_rows


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.zeros((4, 1000), np.float32))
    return tmp_path / "x.npy"


def test_rows_are_written_and_no_others(array: Path) -> None:
    write_rows(array, [2, 0], np.stack([np.full(1000, 2.0), np.full(1000, 1.0)]).astype(np.float32))
    assert open_array(array).mean(1).tolist() == [1, 0, 2, 0]


def test_a_disk_that_is_full_in_the_middle_of_a_row_is_named(array: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The signal would end this process; ignored, the write fails with an error in its place.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (array.stat().st_size - 2000, limits[1]))
        with pytest.raises(OSError, match=r"too large.*x\.npy"):
            write_rows(array, [3], np.ones((1, 1000), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
