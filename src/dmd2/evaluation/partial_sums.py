"""The sums of a score that is on its way, on disk: one that was cut off goes on there, to the same
last bit.
"""

from collections.abc import Callable
from pathlib import Path

from dmd2.distributed.process_group import rank, world_size
from dmd2.io.tensors import read_metadata, read_tensors, save_tensors
from dmd2.metrics.suite import Batches, MetricSuite


class Sums:
    """Keeps them in `folder` (None: nowhere), after `every` blocks of each rank.

    `key` names all that the score is a function of. Ranks go on each for itself, from where it was;
    another number of
    ranks begins again.
    """

    def __init__(self, folder: Path | None = None, key: str = "", every: int = 50) -> None:
        self.folder, self.key, self.every = folder, key, every

    def add(
        self, suite: MetricSuite, batches: Callable[[range], Batches], rows: range, batch_size: int
    ) -> None:
        """Add the samples `rows` to a suite that has those before them, or find that some were
        added already.
        """
        if self.folder is None:
            return suite.update(batches(rows))
        path = self.folder / f"{self.key}-{rows.stop}-{rank()}-of-{world_size()}.safetensors"
        at_once = self.every * batch_size * world_size()
        start = int(read_metadata(path).get("next_row", rows.start))
        if start > rows.start:
            suite.load_sums(read_tensors(path))
        for row in range(start, rows.stop, at_once):
            stop = min(row + at_once, rows.stop)
            suite.update(batches(range(row, stop)))
            save_tensors(suite.sums(), path, {"next_row": str(stop)})
