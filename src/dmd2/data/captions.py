"""Tables of captions, read from text, JSON lines, CSV or Parquet, or made of phrasings and words.

A label of captioned data is the number of a row of such a table.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dmd2.data.preparation.bucket_folder import parts_of
from dmd2.data.preparation.folder import read_manifest
from dmd2.data.tables import TABLES, lines_of, without_nul
from dmd2.distributed.rank_zero import warn

KINDS = ".txt, .jsonl, .csv or .parquet"  # for error messages


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

    A line on stderr says how many are empty, or the same as another. Raises FileNotFoundError,
    ValueError for a file without captions or with what is no text, and ImportError for .parquet
    without `pyarrow`.
    """
    # A list in YAML, e.g. a folder of latents and a file of further prompts behind it.
    if not isinstance(source, str):
        return [caption for path in source for caption in read_captions(path, column, hint)]
    path = Path(source)
    if not path.exists():
        otherwise = f"name a {KINDS}, or what dmd2 prepare recipe=latents made"
        raise FileNotFoundError(f"no captions at {path}; {hint or otherwise}")
    suffix = path.suffix.lower()
    if path.is_dir():
        # A manifest keeps captions as names of classes, an image a class.
        captions = [text for part in parts_of(path) for text in read_manifest(part)["class_names"]]
    elif suffix == ".txt":
        captions = [line for _, line in lines_of(path)]
    elif suffix in TABLES:
        rows = TABLES[suffix](path, column)
        captions = [caption_of(row, column, where, "data.captions.column") for where, row in rows]
    else:
        raise ValueError(f"cannot read captions from {path}; name a {KINDS}")
    if not captions:
        raise ValueError(f"there are no captions in {path}")
    if odd := odd_captions(captions):
        _say(f"{path}: {odd}")
    return captions


def texts_of(given: str | Sequence[str]) -> list[str]:
    """The texts that somebody asks for: a list, a file of captions by its ending, or one text.

    Raises as `read_captions`, and ValueError for a folder.
    """
    if not isinstance(given, str):
        return list(given)
    # Not Path's, which raises for a text that is too long for a name.
    if os.path.isdir(given):
        raise ValueError(
            f"{given} is a folder; type a text, or a file of captions, one a line: FILE.txt"
        )
    is_file = Path(given).suffix.lower() in (".txt", *TABLES)
    return read_captions(given) if is_file else [given]


@cache  # The same file is read for the data and for its teacher, and said once.
def _say(line: str) -> None:
    warn(line)


def odd_captions(captions: Sequence[str]) -> str:
    """How many captions are empty, and how many the same as one before; "" where none is."""
    texts = [caption for caption in captions if caption.strip()]
    num_empty, num_again = len(captions) - len(texts), len(texts) - len(set(texts))
    said = [f"{num_empty} empty"] * bool(num_empty)
    said += [f"{num_again} the same as one before"] * bool(num_again)
    return f"of {len(captions)} captions {' and '.join(said)}" if said else ""


def caption_of(row: Any, column: str, where: str, setting: str) -> str:
    """The caption in a row of a table, "" for null.

    where    Names the row in errors.
    setting  The key of the configuration that names the column.

    Raises ValueError that lists the columns there are, if this one is missing, and for what is no
    text: the `str` of a list would be trained on as it is.
    """
    if not isinstance(row, dict) or column not in row:
        columns = ", ".join(map(str, row)) if isinstance(row, dict) else "no columns"
        raise ValueError(f"{where} has no column {column}, it has {columns}; type {setting}=NAME")
    caption = row[column]
    if caption is None:  # as in crawled tables
        return ""
    if not isinstance(caption, str):
        hint = "one text a row; of several, write a row for each, or choose one"
        what = type(caption).__name__
        raise ValueError(f"the {column} in {where} is {what}, {caption!r:.60}, expected {hint}")
    try:
        caption.encode()
    except UnicodeEncodeError as error:  # JSON can say half of a character, \ud83d
        raise ValueError(f"the {column} in {where} is no Unicode text ({error})") from error
    return without_nul(caption, f"the {column} in {where}")
