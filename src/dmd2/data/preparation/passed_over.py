"""What readers of a source pass over: how many files of each kind, and the first one's name."""

from collections.abc import Mapping
from pathlib import PurePosixPath

PassedOver = dict[str, tuple[int, str]]
"""By kind, e.g. "FIFO" or ".pdf": how many, and the name of the first."""


def pass_over(passed: PassedOver, kind: str, name: str) -> None:
    """Count one more of a kind."""
    num, first = passed.get(kind, (0, name))
    passed[kind] = (num + 1, first)


def pass_over_file(passed: PassedOver, name: str) -> None:
    """Count a regular file that nobody reads, by its suffix."""
    pass_over(passed, PurePosixPath(name).suffix.lower() or "without a suffix", name)


def said(passed: Mapping[str, tuple[int, str]]) -> str:
    """All in one line; "" where nothing was passed over."""
    kinds = [f"{num} {kind} ({first})" for kind, (num, first) in sorted(passed.items())]
    return f"passed over, with the first of each: {', '.join(kinds)}" if kinds else ""
