"""Names of strangers in Markdown: they stay text, and become neither markup nor code."""

import html
import json
import re
from collections.abc import Sequence

from dmd2.io.shown import in_one_line

MARKUP = r"[\\`*\[\]|#]"
"""A character to which Markdown gives a meaning inside a line."""


def text(name: object) -> str:
    """A name on one line of Markdown or in a cell of its table, as text."""
    line = in_one_line(name)
    # A tag is named by its entity; what Markdown gives a meaning inside a line gets a backslash.
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(f"({MARKUP})", r"\\\1", line)


def literal(name: str) -> str:
    """A name as a string of Python, in double quotes, on one line of a code block."""
    # A fence of backticks ends a code block wherever a line begins with it; there is one line.
    return json.dumps(in_one_line(name))


def aligned(lines: Sequence[str]) -> list[str]:
    """The lines of a table, of one width a column and without Markdown's escapes: for a console.

    >>> aligned(["| a | long |", "|---|---|", "| b | 1 |"])
    ['| a   | long |', '|-----|------|', '| b   |    1 |']
    """
    # A backslash before a bar makes it text.
    cells = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, _, *body = cells
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [_padded(head, widths), rule, *(_padded(row, widths) for row in body)]


def _plain(cell: str) -> str:
    """What `text` was made of."""
    return html.unescape(re.sub(rf"\\({MARKUP})", r"\1", cell.strip()))


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    texts = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return "| " + " | ".join(texts) + " |"
