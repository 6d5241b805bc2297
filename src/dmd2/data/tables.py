"""Tables of rows from JSON lines, CSV and Parquet files, as Windows and Excel write them, too."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from dmd2.io.files import in_one_line, parse_json

Row = tuple[str, Any]  # where it is, for error messages, and its values
DELIMITERS = ",;\t"  # Excel takes the second where commas stand in numbers.


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1 on."""
    # Not str.splitlines, which also splits at U+2028 and other separators inside captions. The
    # byte order mark that Windows writes is no part of a text.
    with unreadable_named(str(path)), path.open(encoding="utf-8-sig") as file:
        yield from ((i, line.strip()) for i, line in enumerate(file, 1) if line.strip())


def text_of(data: bytes, where: str) -> str:
    """The text in the bytes of a file, without a byte order mark and blanks around it."""
    with unreadable_named(where):
        return data.decode("utf-8-sig").strip()


@contextmanager
def unreadable_named(where: str) -> Iterator[None]:
    """Inside, errors of what is no text or no CSV become a ValueError that names `where`."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where} cannot be read ({error}); save it as UTF-8") from error


def _jsonl(path: Path, column: str) -> Iterator[Row]:
    for i, line in lines_of(path):
        where = f"line {i} of {path}"
        yield where, parse_json(line.encode(), where)


def _csv(path: Path, column: str) -> Iterator[Row]:
    # The csv module reads line ends itself: they may lie inside quotes.
    with unreadable_named(str(path)), path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        headers = {d: next(csv.reader([first], delimiter=d), []) for d in DELIMITERS}
        delimiter = next((d for d in DELIMITERS if column in headers[d]), ",")
        # Strict, since a quote that nobody closes would swallow the rest of the file as one text.
        reader = csv.DictReader(chain([first], file), delimiter=delimiter, strict=True)
        for row in reader:
            where = f"line {reader.line_num} of {path}"
            if None in row:
                raise ValueError(
                    f"{where} has more cells than the first line; put texts that hold a "
                    f"{delimiter!r} in quotes"
                )
            yield where, row


def _parquet(path: Path, column: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .parquet needs pyarrow; type in the checkout: "
            "make install EXTRAS=dev,parquet, or pip install '.[parquet]'"
        ) from error
    i = 0
    try:
        # By batches of rows, since such tables may be larger than memory.
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                i += 1
                yield f"row {i} of {path}", row
    # Arrow's reader of the format raises OSError, and its texts may be no UTF-8.
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        words = in_one_line(error)
        raise ValueError(f"{path} is no Parquet file, or damaged ({words})") from error


TABLES = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Readers of tables, row by row, by suffix; a reader is given the column that is wanted."""
