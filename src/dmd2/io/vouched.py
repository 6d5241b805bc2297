"""Large files beside a record of sizes and hashes, which are compared before they are trusted.

Sizes are compared always, hashes only of a file that is not older than the record: the record's
modification time says when all were last found to be right. So a file that is written later is
found, and files that nobody touched are opened at once.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dmd2.io.progress import hashed


def hashes_of(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{"num_bytes", "sha256"} of each file of a folder, for a record."""
    return {
        name: {"num_bytes": (folder / name).stat().st_size, "sha256": hashed(folder / name)}
        for name in names
    }


def check_sizes(folder: Path, said: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise FileNotFoundError or ValueError that names the first file which is missing, or of
    another size than is said.
    """
    for name, about in said.items():
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} is missing")
        if (size := (folder / name).stat().st_size) != (expected := about["num_bytes"]):
            raise ValueError(f"{folder / name} has {size} bytes, its manifest says {expected}")


def check_hashes(folder: Path, said: Mapping[str, Mapping[str, Any]], record: Path) -> None:
    """Compare every hash; if all are right, set the time of the record to now.

    Raises as `check_sizes`, and ValueError that names the first file which differs.
    """
    check_sizes(folder, said)
    for name, about in said.items():
        if hashed(folder / name) != about["sha256"]:
            raise ValueError(f"{folder / name} was altered, its hash is not the manifest's")
    with suppress(OSError):  # a read-only folder is hashed each time it may have changed
        record.touch()


def check_changed(folder: Path, said: Mapping[str, Mapping[str, Any]], record: Path) -> None:
    """`check_hashes` where a file may have been written after the record, e.g. in a copy."""
    check_sizes(folder, said)
    # Not older counts as changed: clocks of file systems may be coarse.
    vouched = record.stat().st_mtime_ns
    if any((folder / name).stat().st_mtime_ns >= vouched for name in said):
        check_hashes(folder, said, record)
