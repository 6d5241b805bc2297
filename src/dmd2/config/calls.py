"""Check constructor calls: what stands beside a `_target_` is what it takes."""

import inspect
from typing import Any

from hydra.utils import get_object

from dmd2.config.keys import unknown_key
from dmd2.config.types import PLAIN, first_misfit
from dmd2.config.values import CALL, misfit

EXACT = ("dmd2.", "torch.", "lightning.")
"""Whose annotations say what is taken; those of diffusers say less, e.g. `tuple[int]` of many."""

HYDRAS_OWN = {"_target_": PLAIN[str], "_partial_": PLAIN[bool]}
"""Keys of a call that are Hydra's, and what they take."""


def check_calls(path: str, node: Any) -> None:
    """Raise ValueError for the first key below `node` that its target does not take, or its value.

    path  Dotted path of `node`, "" for a whole config.
    """
    for call_path, call in _calls(path, node):
        for key, (what, fits) in HYDRAS_OWN.items():
            if key in call and not fits(call[key]):
                raise ValueError(misfit(f"{call_path}.{key}".lstrip("."), call[key], what, "VALUE"))
        known = parameters_of(get_object(call["_target_"]))
        is_exact = call["_target_"].startswith(EXACT)
        for key, value in call.items():
            key_path = f"{call_path}.{key}".lstrip(".")
            # Keys with an underscore are Hydra's own, e.g. `_partial_`.
            wrong = first_misfit(key_path, known[key], value) if is_exact and key in known else None
            if wrong is not None:
                raise ValueError(misfit(*wrong, CALL.example if CALL.what in wrong[2] else "VALUE"))
            if not key.startswith("_") and key not in known and not takes_any(known):
                raise ValueError(unknown_key(key_path, known, f"; take it out: ~{key_path}"))


def takes_any(known: dict[str, inspect.Parameter]) -> bool:
    """Whether a target takes any key: it has `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in known.values())


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class, by name.

    Where a class's `__init__` takes `**kwargs`, they stand for the parameters of the class that
    it extends. One of kind VAR_KEYWORD is left only where the last of them takes `**kwargs`, too.
    """
    found: dict[str, inspect.Parameter] = {}
    classes = target.__mro__ if inspect.isclass(target) else ()
    for owner in classes or (target,):
        # `__dict__` and not `getattr`, which would find an inherited `__init__` again.
        function = owner.__dict__.get("__init__") if classes else owner
        if function is None:
            continue
        own = dict(inspect.signature(function).parameters)
        open_ended = [name for name, p in own.items() if p.kind is p.VAR_KEYWORD]
        found |= {name: p for name, p in own.items() if name != "self" and name not in open_ended}
        if not open_ended:
            return found
    return found | {"**": inspect.Parameter("extra", inspect.Parameter.VAR_KEYWORD)}


def _calls(path: str, node: Any) -> list[tuple[str, dict[str, Any]]]:
    """All nodes with a `_target_`, outer ones first, with their dotted paths."""
    if isinstance(node, list):
        return [call for i, item in enumerate(node) for call in _calls(f"{path}.{i}", item)]
    if not isinstance(node, dict):
        return []
    inner = [
        call for key, item in node.items() for call in _calls(f"{path}.{key}".lstrip("."), item)
    ]
    return [(path, node), *inner] if "_target_" in node else inner
