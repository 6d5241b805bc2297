"""Whether a YAML value fits a parameter's annotation; what is not plain data always does."""

import inspect
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from dmd2.config.values import is_number, is_whole

PLAIN = {
    int: ("a whole number", is_whole),
    float: ("a number", is_number),
    bool: ("true or false", lambda x: isinstance(x, bool)),
    str: ("text", lambda x: isinstance(x, str)),
    Path: ("a path", lambda x: isinstance(x, str)),
    NoneType: ("null", lambda x: x is None),
}
LISTS = {list, tuple, Sequence, Collection, Iterable}


def takes(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether a parameter takes a value of a config.

    What is not resolved yet fits, and so does the parameter's default.
    """
    unresolved = isinstance(value, str) and "${" in value
    return unresolved or value is parameter.default or fits(parameter.annotation, value)


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value is of an annotation's type; true for annotations of other objects."""
    if isinstance(value, dict):  # a call, or keys of a mapping
        return True
    if annotation in PLAIN:
        return bool(PLAIN[annotation][1](value))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(item, value) for item in inner)
    if origin is Literal:
        return value in inner
    if origin not in LISTS:
        # E.g. a network or a function: only plain data is known to be none.
        return True
    if not isinstance(value, list):
        return False
    if origin is tuple and inner[-1] is not Ellipsis:
        return len(inner) == len(value) and all(map(fits, inner, value))
    return all(fits(inner[0], item) for item in value)


def words_of(annotation: Any) -> str:
    """An annotation in words, e.g. "a whole number, or null"."""
    if annotation in PLAIN:
        return PLAIN[annotation][0]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(map(words_of, inner)))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: {', '.join(map(words_of, inner))}"
    if origin in LISTS:
        return f"a list, each {words_of(inner[0])}"
    return "another object"
