"""The pictures of a page: data URIs, as many as a mail carries."""

import base64
from collections.abc import Sequence
from pathlib import Path

from dmd2.io.small_files import read_small

MAX_GRIDS = 40
"""Grids of samples that a page shows at most."""
MAX_GRID_BYTES = 3 * 2**20
"""What all these have together, at most."""
MAX_PICTURE_BYTES = 2 * 2**20
"""A lone picture that has more is named and not shown."""


def data_uri(path: Path) -> str:
    """A PNG file as text that stands for its address."""
    return "data:image/png;base64," + base64.b64encode(read_small(path)).decode()


def evenly(paths: Sequence[Path], num: int) -> list[Path]:
    """`num` of some paths, evenly spaced, the first and the last among them; of one the last.

    >>> [path.name for path in evenly([Path(name) for name in "abcde"], 3)]
    ['a', 'c', 'e']
    """
    if len(paths) <= num:
        return list(paths)
    if num == 1:
        return [paths[-1]]
    return [paths[i * (len(paths) - 1) // (num - 1)] for i in range(num)]


def grids_of(run: Path) -> list[Path]:
    """The grids of a run's samples, by iteration."""
    return sorted(p for p in (run / "samples").glob("[0-9]*.png") if p.is_file())


def shown_grids(run: Path) -> list[dict[str, str]]:
    """Grids over the run, `iteration` and `picture` of each: as many as are small enough."""
    grids = grids_of(run)
    largest = max((path.stat().st_size for path in grids), default=1)
    shown = evenly(grids, min(MAX_GRIDS, max(1, MAX_GRID_BYTES // max(1, largest))))
    return [{"iteration": str(int(path.stem)), "picture": data_uri(path)} for path in shown]


def lone_picture(path: Path) -> str | None:
    """A picture to show; None where it is not there, or too large."""
    if not path.is_file() or path.stat().st_size > MAX_PICTURE_BYTES:
        return None
    return data_uri(path)
