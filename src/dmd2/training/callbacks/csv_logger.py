"""metrics.csv: one row an iteration that logs, on disk at once, and going on where a resumed run
does.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from dmd2.io.files import name_in_errors, write_bytes

Row = dict[str, str]


class CSVLogger(Logger):
    """Numbers of one iteration share a row; a new key adds a column to the whole file,
    atomically.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns, self.last = ["step"], Row()
        self.start_of_last = 0

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "csv"

    @property
    def version(self) -> str:
        """Nothing: a run's directory has one log."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml lies beside."""

    @rank_zero_only
    def go_on_from(self, path: Path, iteration: int) -> None:
        """Begin with the rows of the log at `path` up to `iteration`: those of later ones will be
        made again.
        """
        rows = [row for row in read_rows(path) if _is_whole(row) and int(row["step"]) <= iteration]
        self.columns = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of iteration `step`, which is the last row or a new one."""
        if new := [key for key in metrics if key not in self.columns]:
            self.columns += new
            self._rewrite(read_rows(self.path))
        row = self.last if self.last.get("step") == str(step) else Row(step=str(step))
        row |= {key: repr(float(value)) for key, value in metrics.items()}
        with name_in_errors(self.path), self.path.open("r+b") as file:
            self.start_of_last = file.seek(
                *((self.start_of_last, 0) if row is self.last else (0, 2))
            )
            file.write(self._text([row]))
            file.truncate()
        self.last = row

    def _rewrite(self, rows: list[Row]) -> None:
        names = {column: column for column in self.columns}
        before, last = self._text([names, *rows[:-1]]), self._text(rows[-1:])
        self.start_of_last, self.last = len(before), dict(rows[-1]) if rows else Row()
        write_bytes(self.path, before + last)

    def _text(self, rows: Iterable[Row]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _is_whole(row: Row) -> bool:
    """Whether a row has all its columns: a process that was killed, or a full disk, may have cut
    the last one.
    """
    return None not in (*row, *row.values()) and row["step"].isdigit()


def read_rows(path: Path) -> list[Row]:
    """The rows of a log, values as text; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
