"""Whether a YAML value fits a parameter's annotation: plain data, or a call where objects go."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from dmd2.config.values import CALL, is_node, is_number, is_whole

PLAIN = {
    int: ("a whole number", is_whole),
    float: ("a number", is_number),
    bool: ("true or false", lambda x: isinstance(x, bool)),
    str: ("text", lambda x: isinstance(x, str)),
    Path: ("a path", lambda x: isinstance(x, str)),
    NoneType: ("null", lambda x: x is None),
}
LISTS = {list, tuple, Sequence, Collection, Iterable}
MAPPINGS = {dict, Mapping}


def is_reference(value: Any) -> bool:
    """Whether a value is what other keys say, and not resolved yet."""
    return isinstance(value, str) and "${" in value


def first_misfit(
    path: str, parameter: inspect.Parameter, value: Any
) -> tuple[str, Any, str] | None:
    """Path, value and words for the first part of a config's value that a parameter does not take.

    What is not resolved yet fits, and so does the parameter's default.
    """
    if is_reference(value) or value is parameter.default:
        return None
    parts = _parts(path, parameter.annotation, value)
    return next(
        ((at, item, words_of(kind)) for at, kind, item in parts if not fits(kind, item)), None
    )


def _parts(path: str, annotation: Any, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """A value with its path and annotation, or those of each item of a mapping."""
    if get_origin(annotation) not in MAPPINGS or not isinstance(value, dict) or is_node(value):
        yield path, annotation, value
        return
    for key, item in value.items():
        yield from _parts(f"{path}.{key}", get_args(annotation)[1], item)


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value is of an annotation's type: plain data, or a call that may give the rest."""
    if is_node(value) or is_open(annotation):
        return True
    if annotation in PLAIN:
        return bool(PLAIN[annotation][1](value))
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(item, value) for item in inner)
    if origin is Literal:
        return value in inner
    if origin in MAPPINGS:
        return isinstance(value, dict)
    # An object, e.g. a network or a function, is no plain data.
    if origin not in LISTS or not isinstance(value, list):
        return False
    if origin is tuple and inner[-1] is not Ellipsis:
        return len(inner) == len(value) and all(map(fits, inner, value))
    return all(fits(inner[0], item) for item in value)


def is_open(annotation: Any) -> bool:
    """Whether an annotation says nothing of what it takes."""
    unsaid = (Any, object, inspect.Parameter.empty)
    return annotation in unsaid or isinstance(annotation, str | TypeVar)


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
    return "keys with values" if origin in MAPPINGS else CALL.what
