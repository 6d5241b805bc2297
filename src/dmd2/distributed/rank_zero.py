"""What rank 0 does for all: files of which a run has one, lines on stderr, progress bars."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from dmd2.distributed.process_group import is_rank_zero


def on_rank_zero(work: Callable[[], Any], otherwise: Any = None) -> Any:
    """What `work` returns, done on rank 0 alone; `otherwise` on the others, who do not wait."""
    return work() if is_rank_zero() else otherwise


def warn(line: str) -> None:
    """A line on stderr, from rank 0 alone."""
    on_rank_zero(lambda: print(f"dmd2: {line}", file=sys.stderr))


def progress_bar(**options: Any) -> "tqdm[Any]":
    """A bar of tqdm's, with its `options`; rank 0 alone shows it."""
    return tqdm(**options, disable=not is_rank_zero())
