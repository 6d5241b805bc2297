"""Tables of captions: a label of a captioned data set is the number of its caption here."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmd2.data.preparation.folder import is_prepared, read_manifest


def filled(phrasings: Sequence[str], words: Sequence[str]) -> list[str]:
    """Every phrasing with every word in the place of its {}; caption i has word i modulo the number
    of words.
    """
    if not all("{}" in phrasing for phrasing in phrasings):
        raise ValueError(f"a phrasing needs a place for the word, {{}}; got {list(phrasings)}")
    return [phrasing.format(word) for phrasing in phrasings for word in words]


def read(
    source: str | Sequence[str], column: str = "caption", hint: str | None = None
) -> list[str]:
    """The captions of a file, or of several, one after the other.

    source  .txt, one a line (empty lines are none); .jsonl, .csv or .parquet; or a folder of
            prepared latents.
    column  Where a row of a table has its caption; one that is missing there is the empty caption.
    hint    What to tell somebody who has no such file.

    Raises FileNotFoundError, ValueError for a file without captions, ImportError for .parquet
    without `pyarrow`.
    """
    if not isinstance(source, str):
        return [caption for path in source for caption in read(path, column, hint)]
    path = Path(source)
    if not path.exists():
        otherwise = f"name a {KINDS}, or what dmd2 prepare recipe=latents made"
        raise FileNotFoundError(f"no captions at {path}; {hint or otherwise}")
    if path.is_dir():
        captions = read_manifest(path)["class_names"] if is_prepared(path) else []
    elif path.suffix == ".txt":
        captions = [line for _, line in _lines(path)]
    elif path.suffix in ROWS:
        captions = [
            caption_of(row, column, f"row {i} of {path}")
            for i, row in enumerate(ROWS[path.suffix](path))
        ]
    else:
        raise ValueError(f"cannot read captions from {path}; name a {KINDS}")
    if not captions:
        raise ValueError(f"there are no captions in {path}")
    return captions


def caption_of(row: Any, column: str, where: str) -> str:
    """The caption of a row of a table; raises ValueError that names the columns where it has no
    such one.
    """
    if not isinstance(row, dict) or column not in row:
        columns = ", ".join(map(str, row)) if isinstance(row, dict) else "no columns"
        raise ValueError(
            f"{where} has no column {column}, it has {columns}; type data.captions.column=NAME"
        )
    return str(row[column] or "")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers; a file's, not a string's, which
    have more ends.
    """
    with path.open(encoding="utf-8") as file:
        yield from ((i, line.strip()) for i, line in enumerate(file, 1) if line.strip())


def _jsonl(path: Path) -> Iterator[Any]:
    for i, line in _lines(path):
        yield parsed(line, f"line {i} of {path}")


def parsed(text: str | bytes, where: str) -> Any:
    """What JSON says; raises ValueError that says where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error})") from error


def _csv(path: Path) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .parquet needs pyarrow; type: pip install 'dmd2[parquet]'"
        ) from error
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


ROWS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Readers of tables, row by row, by suffix."""
KINDS = ".txt, .jsonl, .csv or .parquet"
