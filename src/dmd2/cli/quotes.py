"""Quotes around what Hydra's grammar cannot read as it stands: the form in which one types it."""

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

BRACKETS = {"[": "]", "{": "}"}
"""Of a list, and of a mapping."""


def mended(override: str) -> str | None:
    """An override that Hydra cannot read, with quotes for it and for the shell.

    None where quotes do not help, as its key is none.
    """
    key, _, value = override.partition("=")
    found = f"{key}={quoted(value)}"
    return shlex.quote(found) if parsed(found) else None


def parsed(override: str) -> Override | None:
    """What Hydra reads an override as; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def quoted(value: str, place: str = "key=%s") -> str:
    r"""A value with quotes around every text in it that Hydra does not read at its place.

    A list or mapping stays one, and is closed where it is not.

    >>> print(quoted("[data.source=none,seed,[a=b]"), quoted("{a:b=c}"), quoted('a:("'))
    ["data.source=none",seed,["a=b"]] {a:"b=c"} "a:(\""
    """
    start, end = value[:1], BRACKETS.get(value[:1], "")
    if end and (value.endswith(end) or end not in value):
        inside = parts(value[1:].removesuffix(end))
        if start == "[":
            return f"[{','.join(quoted(part, 'key=[%s]') for part in inside)}]"
        # With an equals sign in place of the colon it is meant so, too.
        pairs = ([*re.split("[:=]", part, maxsplit=1), ""] for part in inside)
        own = (f"{name}:{quoted(text.strip(), 'key={a:%s}')}" for name, text, *_ in pairs)
        return f"{{{','.join(own)}}}"
    if parsed(place % value):
        return value
    # Backslashes are themselves but before a quote.
    escaped = re.sub(
        r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), value
    )
    return f'"{escaped}"'


def parts(text: str) -> list[str]:
    """What commas part, but for those in brackets and in quotes."""
    found, depth, quote = [""], 0, ""
    for char in text:
        # A quote begins a text; within one it is an apostrophe.
        if quote or (char in "\"'" and found[-1][-1:] in ("", *" :[{(")):
            quote = "" if char == quote else quote or char
        elif char in "[{(":
            depth += 1
        elif char in ")}]":
            depth -= 1
        if char == "," and not depth and not quote:
            found.append("")
        else:
            found[-1] += char
    return [part.strip() for part in found if part.strip()]
