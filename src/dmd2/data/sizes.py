"""Sizes of images as people write them: height and width in pixels."""

from collections.abc import Iterable
from typing import Any

Size = tuple[int, int]
"""Height and width in pixels."""


def size_of(given: Any) -> Size:
    """Height and width in pixels; raises ValueError where `given` is something else."""
    is_pair = isinstance(given, list | tuple) and len(given) == 2
    if not is_pair or not all(type(pixels) is int and pixels > 0 for pixels in given):
        raise ValueError(f"a size is height and width in pixels, e.g. [768,1344], got {given!r}")
    height, width = given
    return height, width


def written(sizes: Iterable[Size]) -> str:
    """Sizes as they are typed, e.g. [[512,512],[448,576]]."""
    return f"[{','.join(f'[{height},{width}]' for height, width in sizes)}]"
