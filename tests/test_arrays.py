"""Rows of a .npy file: only their bytes are written, and a full disk is an error."""

import io
import resource
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from dmd2.cli.errors import one_line
from dmd2.io.arrays import open_array, read_arrays, write_rows


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


DAMAGE = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "packed"])
@given(damage=DAMAGE, end=st.none() | st.integers(0, 2**20))
def test_a_damaged_archive_of_arrays_is_one_line_or_changes_nothing(
    save, damage: list[tuple[int, int]], end: int | None, tmp_path: Path
) -> None:
    path, mu = tmp_path / "x.npz", np.arange(6.0)
    save(path, mu=mu)
    data = bytearray(path.read_bytes())
    for at, byte in damage:
        data[at % len(data)] = byte
    path.write_bytes(data[: None if end is None else end % len(data)])
    try:
        (found,) = read_arrays(path, "mu")
    except ValueError as error:
        assert "x.npz" in str(error) and one_line(error)
    else:
        np.testing.assert_array_equal(found, mu)


@given(damage=DAMAGE)
def test_a_damaged_header_of_an_array_is_one_line_or_an_array_in_the_file(
    damage: list[tuple[int, int]], tmp_path: Path
) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0))
    data = bytearray(path.read_bytes())
    for at, byte in damage:
        data[at % 128] = byte
    path.write_bytes(data)
    try:
        assert open_array(path).nbytes <= len(data)
    except ValueError as error:
        assert "x.npy" in str(error) and one_line(error)


def test_sizes_that_a_header_claims_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "mu.npy").write_bytes(header(10**13))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "mu.npy", "mu.npy")
    with pytest.raises(ValueError, match=r"x\.npz is refused"):
        read_arrays(tmp_path / "x.npz", "mu")
    with pytest.raises(ValueError, match=r"mu\.npy is refused"):
        open_array(tmp_path / "mu.npy")


def header(num: int) -> bytes:
    """The beginning of a .npy file of so many numbers."""
    file = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (num,)}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()
