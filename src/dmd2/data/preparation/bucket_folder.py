"""A folder of images of several sizes: a prepared folder for each bucket, and what they share.

    buckets.json  how they are made, and which image is of which bucket; written first
    832x1216/     a prepared folder, by height and width in pixels: its images, and their captions
    ...

It is finished when all of them are, so nothing needs to be written last.
"""

from pathlib import Path
from typing import Any

from dmd2.data.preparation.folder import is_prepared, read_manifest
from dmd2.data.sizes import Size
from dmd2.io.files import read_hashed_json

BUCKETS = "buckets.json"


def is_begun(folder: Path) -> bool:
    """Whether a folder is one of buckets, finished or not."""
    return (folder / BUCKETS).exists()


def read_buckets(folder: Path) -> dict[str, Any]:
    """What buckets.json says; raises ValueError where it was altered."""
    try:
        return read_hashed_json(folder / BUCKETS)
    except ValueError as error:
        raise ValueError(f"{error}; remove {folder} and prepare it again") from error


def sizes_in(folder: Path) -> list[Size]:
    """Heights and widths in pixels of the buckets in a folder; [] where it is none of buckets."""
    if not is_begun(folder):
        return []
    return [(height, width) for height, width in read_buckets(folder)["buckets"]]


def part_of(folder: Path, size: Size) -> Path:
    """The prepared folder of the bucket of this height and width."""
    height, width = size
    return folder / f"{height}x{width}"


def parts_of(folder: Path) -> list[Path]:
    """The prepared folders that a folder is: one a bucket in their order, or itself alone.

    [] where nothing is finished.
    """
    parts = [part_of(folder, size) for size in sizes_in(folder)] or [folder]
    return parts if all(is_prepared(part) for part in parts) else []


def about_of(folder: Path) -> dict[str, Any]:
    """How a finished folder was made: what buckets.json says, or its manifest."""
    return read_buckets(folder) if is_begun(folder) else read_manifest(folder)
