"""A folder of samples holds those of one set: other samples are refused, and there must be room."""

import os
import shutil
from math import prod
from pathlib import Path

from dmd2.io.files import read_hashed_json, write_hashed_json

RECORD = ".samples.json"
LEAST_FILE_BYTES = 4096
"""What a picture takes on a disk at least: a block."""


def take_folder(out: Path, key: str, num: int) -> None:
    """Write down what samples are in a folder before there are any, for the same command again.

    key  Of all that samples depend on; more of the same set may be added, and not fewer.

    Raises ValueError where other samples are there.
    """
    record = out / RECORD
    numbers = [int(path.stem) for path in out.glob("*.png") if path.stem.isdigit()]
    if numbers or (out / "points.npy").exists():
        said = read_hashed_json(record) if record.exists() else {}
        if said.get("key") != key or max(numbers, default=0) >= num:
            raise ValueError(
                f"{out} holds other samples, or more of them; name another folder: out=DIR"
            )
    write_hashed_json(record, {"key": key})


def check_room(out: Path, shape: tuple[int, ...], num: int, batch_size: int) -> None:
    """Raise ValueError where the disk cannot hold so many pictures, or memory a batch or points.

    shape  Of one sample, in model space.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sample_bytes = 4 * prod(shape)
    if len(shape) > 1:
        place = out.absolute()
        free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
        # What is there already is written over.
        there = sum(1 for _ in out.glob("*.png"))
        if (num - there) * LEAST_FILE_BYTES > free:
            most = there + free // LEAST_FILE_BYTES
            raise ValueError(
                f"num_images={num:,} files do not fit on the disk of {out}, which has room for "
                f"{most:,} at most; type a smaller num_images, or out=DIR on another disk"
            )
    elif num * sample_bytes > memory:
        raise ValueError(
            f"num_images={num:,} points do not fit into memory; type num_images="
            f"{memory // sample_bytes // 10}"
        )
    if min(num, batch_size) * sample_bytes > memory:
        raise ValueError(f"batch_size={batch_size:,} does not fit into memory; type batch_size=100")
