"""Partial sums of a score, on disk: a score that was cut off goes on, to the same last bit."""

import sys
from collections.abc import Callable
from pathlib import Path

from dmd2.distributed.process_group import rank, world_size
from dmd2.io.hashed_tensors import read_hashed, save_hashed
from dmd2.metrics.suite import Batches, MetricSuite


class PartialSums:
    """Keeps what a suite has added up in `folder` (None: nowhere), after `every` blocks of a rank.

    `key` names all that the score is a function of. Each rank goes on from where it was itself;
    with another number of ranks the score begins again.
    """

    def __init__(self, folder: Path | None = None, key: str = "", every: int = 50) -> None:
        self.folder, self.key, self.every = folder, key, every

    def add(
        self, suite: MetricSuite, batches: Callable[[range], Batches], rows: range, batch_size: int
    ) -> None:
        """Add the samples `rows` to a suite that has those before them.

        Samples that an earlier attempt has added are read from disk instead.
        """
        if self.folder is None:
            return suite.update(batches(rows))
        # Which samples are a rank's depends on how many ranks there are, so that is in the name.
        path = self.folder / f"{self.key}-{rows.stop}-{rank()}-of-{world_size()}.safetensors"
        at_once = self.every * batch_size * world_size()
        start = self._restore(suite, path, rows.start)
        for row in range(start, rows.stop, at_once):
            stop = min(row + at_once, rows.stop)
            suite.update(batches(range(row, stop)))
            save_hashed(suite.sums(), path, {"next_row": str(stop)})

    @staticmethod
    def _restore(suite: MetricSuite, path: Path, start: int) -> int:
        """Give a suite the sums at `path`, if they are there and whole; the row to go on from."""
        if not path.exists():
            return start
        try:
            sums, about = read_hashed(path)
        except ValueError as error:
            print(f"dmd2: {error}; these samples are scored again", file=sys.stderr)
            return start
        next_row = int(about["next_row"])
        if next_row > start:
            suite.load_sums(sums)
        return max(next_row, start)
