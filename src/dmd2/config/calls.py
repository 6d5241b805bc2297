"""Check constructor calls: every key beside a `_target_` is a parameter of what it names."""

import inspect
from typing import Any

from hydra.utils import get_object

from dmd2.config.keys import unknown_key


def check_calls(path: str, node: Any) -> None:
    """Raise ValueError for the first key of a call below `node` that is no parameter of its target.

    path  Dotted path of `node`, "" for a whole config.
    """
    for call_path, call in _calls(path, node):
        known = parameters_of(get_object(call["_target_"]))
        # A target with `**kwargs` takes any key.
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            continue
        for key in call:
            # Keys with an underscore are Hydra's own, e.g. `_partial_`.
            if not key.startswith("_") and key not in known:
                key_path = f"{call_path}.{key}"
                raise ValueError(unknown_key(key_path, known, f"; take it out: ~{key_path}"))


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
