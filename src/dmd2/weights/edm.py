"""EDM's published networks (Karras et al. 2022): state dict and constructor arguments of a pickle.

The pickle was read by `dmd2.weights.pickles`: every object in it is a `Record`, and is checked
here before anything is taken from it.
"""

from typing import Any

from torch import Tensor

from dmd2.weights.architecture import Architecture
from dmd2.weights.pickles import Record

NETWORKS = ("SongUNet", "DhariwalUNet")
MAX_DEPTH = 10  # of nested modules; theirs are four deep


def network(content: Any) -> tuple[dict[str, Tensor], Architecture]:
    """The exponential moving average that EDM keeps as "ema": (state dict, architecture).

    Names are EDM's. Raises ValueError where it is anything but an EDMPrecond around one of EDM's
    U-Nets.
    """
    precond = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(precond, Record) or precond.kind != "EDMPrecond":
        kind = precond.kind if isinstance(precond, Record) else type(precond).__name__
        # Names out of the file are cut short: they may be of any length.
        raise ValueError(f"its 'ema' is {kind[:50]!r}, and only an EDMPrecond can be imported")
    tensors = state_dict(precond)
    model = _part(precond, "_modules").get("model")
    if not isinstance(model, Record) or model.kind not in NETWORKS:
        raise ValueError(f"its EDMPrecond holds no {' or '.join(NETWORKS)}")
    # The file has only the arguments that were given, none at its default; sigma_data is also an
    # attribute.
    outer = {
        "sigma_data": _plain("sigma_data", precond.content.get("sigma_data", 0.5))
    } | _arguments(precond)
    return tensors, {"class": precond.kind, "arguments": outer, "model": _described(model)}


def state_dict(network: Record) -> dict[str, Tensor]:
    """All parameters and buffers below a module, by dotted name.

    Raises ValueError where a module is none, or is reached twice.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    # A list in place of recursion; a module that contains itself ends at `seen`.
    waiting: list[tuple[tuple[str, ...], Any]] = [((), network)]
    while waiting:
        path, module = waiting.pop()
        if not isinstance(module, Record) or id(module) in seen or len(path) > MAX_DEPTH:
            raise ValueError(f"{'.'.join(path)[:200]!r} is no module, or one in two places")
        seen.add(id(module))
        for name, value in (_part(module, "_parameters") | _part(module, "_buffers")).items():
            if isinstance(value, Record) and isinstance(value.content, Tensor):
                found[".".join((*path, name))] = value.content
            elif value is not None:  # None is a layer without bias
                raise ValueError(f"{'.'.join((*path, name))[:200]!r} is no tensor")
        waiting += [((*path, name), child) for name, child in _part(module, "_modules").items()]
    return found


def _part(module: Record, name: str) -> dict[str, Any]:
    """A dictionary among a module's attributes, e.g. "_parameters"."""
    part = module.content.get(name) if isinstance(module.content, dict) else None
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise ValueError(f"a module of class {module.kind[:50]!r} has no {name}")
    return part


def _described(module: Record) -> Architecture:
    return {"class": module.kind, "arguments": _arguments(module)}


def _arguments(module: Record) -> dict[str, Any]:
    # `_init_args` and `_init_kwargs` are what EDM's `persistent_class` records at construction.
    if module.content.get("_init_args"):
        raise ValueError(
            f"its {module.kind} was made with nameless arguments, which nobody can check"
        )
    return {name: _plain(name, value) for name, value in _part(module, "_init_kwargs").items()}


def _plain(name: str, value: Any) -> Any:
    """An argument as JSON holds it: a scalar, or a short list of scalars."""
    if isinstance(value, list | tuple) and len(value) < 100:
        return [_scalar(name, item) for item in value]
    return _scalar(name, value)


def _scalar(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(
            f"the argument {name[:50]!r} is {type(value).__name__}, and no number, word or list "
            "of them"
        )
    return value
