"""Tables of captions, read from text, JSON lines, CSV or Parquet, or made of phrasings and words.

A label of captioned data is the number of a row of such a table.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmd2.data.preparation.folder import is_prepared, read_manifest


def fill_phrasings(phrasings: Sequence[str], words: Sequence[str]) -> list[str]:
    """Captions of every phrasing with every word in place of its {}, e.g. "the digit {}".

    Words change fastest: caption i has word i modulo the number of words. Raises ValueError for a
    phrasing without {}.
    """
    if not all("{}" in phrasing for phrasing in phrasings):
        raise ValueError(f"a phrasing needs a place for the word, {{}}; got {list(phrasings)}")
    return [phrasing.format(word) for phrasing in phrasings for word in words]


def read_captions(
    source: str | Sequence[str], column: str = "caption", hint: str | None = None
) -> list[str]:
    """The captions of a file, or of several files one after the other.

    source  A .txt with a caption per line (empty lines are skipped); a .jsonl, .csv or .parquet; or
            a folder of prepared latents, whose captions are returned.
    column  The name of the column with the captions; an empty cell or null is the caption "".
    hint    What to tell somebody who has no such file.

    Raises FileNotFoundError, ValueError for a file without captions, and ImportError for .parquet
    without `pyarrow`.
    """
    # A list in YAML, e.g. a folder of latents and a file of further prompts behind it.
    if not isinstance(source, str):
        return [caption for path in source for caption in read_captions(path, column, hint)]
    path = Path(source)
    if not path.exists():
        otherwise = f"name a {KINDS}, or what dmd2 prepare recipe=latents made"
        raise FileNotFoundError(f"no captions at {path}; {hint or otherwise}")
    if path.is_dir():
        # The manifest keeps captions as names of classes, an image a class.
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
    """The caption in a row of a table; `where` names the row in errors.

    Raises ValueError that lists the columns there are, if this one is missing.
    """
    if not isinstance(row, dict) or column not in row:
        columns = ", ".join(map(str, row)) if isinstance(row, dict) else "no columns"
        raise ValueError(
            f"{where} has no column {column}, it has {columns}; type data.captions.column=NAME"
        )
    # Null, as in crawled tables, is the empty caption; None must not become the word "None".
    return str(row[column] or "")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers from 1 on."""
    # Not str.splitlines, which also splits at U+2028 and other separators inside captions.
    with path.open(encoding="utf-8") as file:
        yield from ((i, line.strip()) for i, line in enumerate(file, 1) if line.strip())


def _jsonl(path: Path) -> Iterator[Any]:
    for i, line in _lines(path):
        yield parse_json(line, f"line {i} of {path}")


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text; raises ValueError that names `where` if it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error})") from error


def _csv(path: Path) -> Iterator[Any]:
    # The csv module reads line ends itself: they may lie inside quotes.
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .parquet needs pyarrow; type in the checkout: "
            "make install EXTRAS=dev,parquet, or pip install '.[parquet]'"
        ) from error
    # By batches of rows, since such tables may be larger than memory.
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


ROWS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Readers of tables, row by row, by suffix."""
KINDS = ".txt, .jsonl, .csv or .parquet"  # for error messages
