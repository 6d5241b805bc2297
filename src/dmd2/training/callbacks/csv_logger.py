"""metrics.csv: one row an iteration that logs, on disk at once; a resumed run adds to it."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from dmd2.io.files import name_in_errors, write_bytes
from dmd2.io.small_files import read_small_text
from dmd2.training.callbacks.run_logger import RunLogger

Row = dict[str, str]


class CSVLogger(Logger, RunLogger):
    """Numbers of one iteration share a row; a new key adds a column to the whole file, atomically.

    path  The file. It belongs to one process: others have no loggers.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns, self._last = ["step"], Row()
        self._start_of_last = 0

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

    def begin(self, config: Mapping[str, Any], resumed: Path | None, iteration: int) -> None:
        """Begin with the rows of the resumed run's log up to `iteration`."""
        path = (resumed or self.path.parent) / self.path.name
        # A row that was cut off is left out, and made again.
        rows = [row for row in read_rows(path) if _is_whole(row) and int(row["step"]) <= iteration]
        self._columns = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)

    def log_picture(self, key: str, path: Path, iteration: int) -> None:
        """Nothing: pictures lie beside."""

    def end(self, folder: Path) -> None:
        """Nothing: every row is on disk."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of iteration `step`, which is the last row or a new one."""
        if new := [key for key in metrics if key not in self._columns]:
            # A new key is rare (the first score, say), so the whole file may be written again.
            self._columns += new
            self._rewrite(read_rows(self.path))
        row = self._last if self._last.get("step") == str(step) else Row(step=str(step))
        # repr keeps every bit of a float: logs of two runs can be compared exactly.
        row |= {key: repr(float(value)) for key, value in metrics.items()}
        with name_in_errors(self.path), self.path.open("r+b") as file:
            # The last row is written over in place; a new one goes to the end of the file.
            place = (self._start_of_last, 0) if row is self._last else (0, 2)
            self._start_of_last = file.seek(*place)
            file.write(self._text([row]))
            file.truncate()
        self._last = row

    def _rewrite(self, rows: list[Row]) -> None:
        names = {column: column for column in self._columns}
        # The last row's place is remembered: numbers of the same iteration are added to it.
        before, last = self._text([names, *rows[:-1]]), self._text(rows[-1:])
        self._start_of_last, self._last = len(before), dict(rows[-1]) if rows else Row()
        write_bytes(self.path, before + last)

    def _text(self, rows: Iterable[Row]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _is_whole(row: Row) -> bool:
    """Whether a row has all its columns: a kill or a full disk may have cut the last one."""
    return None not in (*row, *row.values()) and row["step"].isdigit()


def read_rows(path: Path) -> list[Row]:
    """The rows of a log, values as text; none where there is no file.

    Raises ValueError that names a file which is no log.
    """
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_small_text(path), newline="")))
    except csv.Error as error:
        raise ValueError(f"{path} is damaged, it is no table: {error}") from error
    if rows and "step" not in rows[0]:
        raise ValueError(f"{path} is damaged: its first line names no column `step`")
    return rows


def read_numbers(path: Path) -> list[dict[str, float]]:
    """The rows of a log as numbers, without those that are empty; a last row may be cut off.

    Raises ValueError that names the file and the line of any other damage.
    """
    rows = read_rows(path)
    if rows and not _is_whole(rows[-1]):
        del rows[-1]
    found = []
    for line, row in enumerate(rows, start=2):
        try:
            if not _is_whole(row):
                raise ValueError("it has not the columns of the first line, or no step")
            found.append({key: float(value) for key, value in row.items() if value})
        except ValueError as error:
            raise ValueError(f"{path} is damaged at line {line}: {error}; take it out") from error
    return found


def history(run: Path, last: int) -> Iterator[tuple[int, dict[str, float], Path | None]]:
    """What a run has logged, up to iteration `last`: of each its numbers, and its grid if any."""
    rows = {int(row.pop("step")): row for row in read_numbers(run / "metrics.csv")}
    grids = {int(path.stem): path for path in (run / "samples").glob("[0-9]*.png")}
    for step in sorted(i for i in rows.keys() | grids.keys() if i <= last):
        yield step, rows.get(step, {}), grids.get(step)
