"""Names of strangers in Markdown: they stay text, and become neither markup nor code."""

import json
import re


def text(name: object) -> str:
    """A name on one line of Markdown or in a cell of its table, as text."""
    line = " ".join(str(name).split())
    # A tag is named by its entity; what Markdown gives a meaning inside a line gets a backslash.
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#])", r"\\\1", line)


def literal(name: str) -> str:
    """A name as a string of Python, in double quotes, on one line of a code block."""
    # A fence of backticks ends a code block wherever a line begins with it; there is one line.
    return json.dumps(" ".join(name.split()))
