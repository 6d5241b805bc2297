"""Griffe extension: shapes in docstrings, e.g. [B, C, H, W], are shown as code.

Left as they are, two of them in a row would be a link in Markdown.
"""

import re
from typing import Any

import griffe

SIZE = r"(?:[A-Za-z]\w*|\d+|\.\.\.|\*\w+)(?: ?[+*/-] ?\w+)*"
SHAPE = re.compile(rf"(?<![\w`\]])\[{SIZE}(?:, {SIZE})*\](?!\()")


def coded(text: str) -> str:
    """A docstring whose shapes are code; what is code already stays."""
    # Odd parts are code, or lines of a doctest.
    parts = re.split(r"(```.*?```|`[^`]*`|>>> .*)", text, flags=re.DOTALL)
    parts[::2] = [SHAPE.sub(lambda found: f"`{found[0]}`", part) for part in parts[::2]]
    return "".join(parts)


class Shapes(griffe.Extension):
    """Rewrites every docstring once its object is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe calls this for modules, classes, functions and attributes."""
        if obj.docstring is not None:
            obj.docstring.value = coded(obj.docstring.value)
