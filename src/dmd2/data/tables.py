"""Tables of rows from JSON lines, CSV and Parquet files, as Windows and Excel write them, too."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from dmd2.io.files import name_in_errors, parse_json
from dmd2.io.shown import in_one_line

Row = tuple[str, Any]  # where it is, for error messages, and its values
DELIMITERS = ",;\t"  # Excel takes the second where commas stand in numbers.


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1 on."""
    # Not str.splitlines, which also splits at U+2028 and other separators inside captions. The
    # byte order mark that Windows writes is no part of a text.
    with unreadable_named(path), path.open(encoding="utf-8-sig") as file:
        for i, line in enumerate(file, 1):
            if text := line.strip():
                yield i, without_nul(text, f"line {i} of {path}")


def text_of(data: bytes, where: str) -> str:
    """The text in the bytes of a file, without a byte order mark and blanks around it."""
    with unreadable_named(where):
        return without_nul(data.decode("utf-8-sig").strip(), where)


def without_nul(text: str, where: str) -> str:
    """The same text; raises ValueError that names `where` for one with a NUL character."""
    # UTF-16 of plain letters can be read as UTF-8, with a NUL after each.
    if "\0" in text:
        raise ValueError(
            f"{where} holds a NUL character, so it is no text, or one in UTF-16; save it as UTF-8"
        )
    return text


@contextmanager
def unreadable_named(where: str | Path) -> Iterator[None]:
    """Inside, errors of what is no text become a ValueError that names `where`, and those of
    reading name it, too.
    """
    try:
        with name_in_errors(where):
            yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} cannot be read ({error}); save it as UTF-8") from error


def _jsonl(path: Path, column: str) -> Iterator[Row]:
    for i, line in lines_of(path):
        where = f"line {i} of {path}"
        yield where, parse_json(line.encode(), where)


def _csv(path: Path, column: str) -> Iterator[Row]:
    # The csv module reads line ends itself: they may lie inside quotes.
    with unreadable_named(path), path.open(newline="", encoding="utf-8-sig") as file:
        first = without_nul(file.readline(), f"line 1 of {path}")
        splits = {d: [name.strip() for name in first.split(d)] for d in DELIMITERS}
        quoted = {column, f'"{column}"'}
        delimiter = next((d for d in DELIMITERS if quoted & {*splits[d]}), ",")
        # Strict, since a quote that nobody closes would swallow the rest of the file as one text.
        reader = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
        begin = 1
        try:
            header = [name.strip() for name in next(reader, [])]
            _require_once(column, header, path)
            begin = reader.line_num + 1
            for cells in reader:
                where = f"line {reader.line_num} of {path}"
                if len(cells) > len(header):
                    raise ValueError(
                        f"{where} has more cells than the first line; put texts that hold a "
                        f"{delimiter!r} in quotes"
                    )
                if cells:
                    yield where, dict(zip_longest(header, cells))
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"the row from line {begin} on of {path} cannot be read ({error}); close its "
                "quotes, and write one inside a text twice"
            ) from error


def _require_once(column: str, header: Sequence[str], path: Path) -> None:
    """Raise ValueError where two columns have the name that is wanted: one would be lost."""
    if header.count(column) > 1:
        raise ValueError(f"{path} has two columns {column}; rename one of them")


def _parquet(path: Path, column: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .parquet needs pyarrow; type in the checkout: "
            "make install EXTRAS=dev,parquet, or pip install '.[parquet]'"
        ) from error
    with _damage_named(path, ArrowException):
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        header = file.schema_arrow.names
    _require_once(column, header, path)
    i = 0
    with _damage_named(path, ArrowException), file:
        # By batches of rows, since such tables may be larger than memory.
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                i += 1
                yield f"row {i} of {path}", row
        # A damaged count in a page gives fewer rows, and no error.
        if i != (num := file.metadata.num_rows):
            raise ArrowException(f"it gives {i} rows, and says that it has {num}")


@contextmanager
def _damage_named(path: Path, arrows: type[Exception]) -> Iterator[None]:
    """Inside, what pyarrow raises at a damaged file becomes a ValueError that names it."""
    try:
        yield
    except (MemoryError, PermissionError):  # which arrow's and the system's errors are as well
        raise
    # Arrow's reader of the format raises OSError, and its texts may be no UTF-8.
    except (arrows, OSError, ValueError, OverflowError) as error:
        words = in_one_line(error)
        raise ValueError(f"{path} is no Parquet file, or damaged ({words})") from error


TABLES = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Readers of tables, row by row, by suffix; a reader is given the column that is wanted."""
