"""What rank 0 does for all: files of which a run has one, locks, lines on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dmd2.distributed.process_group import broadcast_from_rank_zero, is_rank_zero
from dmd2.io.files import try_lock
from dmd2.io.shown import printable


def on_rank_zero(work: Callable[[], Any], otherwise: Any = None) -> Any:
    """What `work` returns, done on rank 0 alone; `otherwise` on the others, who do not wait."""
    return work() if is_rank_zero() else otherwise


@contextmanager
def claimed(path: Path, refusal: str) -> Iterator[None]:
    """A block in which nobody but this process and its fellow ranks works on `path`.

    Raises ValueError(refusal) where another one does, and OSError where no lock can be made.
    """

    # Rank 0's lock is everybody's; the file closes, and with it the lock goes, at the end.
    def lock() -> IO[str] | None:
        try:
            return try_lock(path)
        except BlockingIOError:
            return None

    held: IO[str] | None = on_rank_zero(lock)
    if not broadcast_from_rank_zero(lambda: held is not None):
        raise ValueError(refusal)
    try:
        yield
    finally:
        if held is not None:
            held.close()


def warn(line: str) -> None:
    """A line on stderr, from rank 0 alone."""
    on_rank_zero(lambda: print(f"dmd2: {printable(line)}", file=sys.stderr))
