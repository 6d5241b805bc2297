"""Check a weights file's recorded constructor arguments against a teacher's configuration.

Arguments such as sigma_data or a dropout leave no trace in the tensors' shapes, so a strict
`load_state_dict` does not notice a difference.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmd2.io.files import parse_json

# Class, arguments and inner model of a preconditioned network, as JSON holds them:
# {"class": ..., "arguments": {...}, "model": {"class": ..., "arguments": {...}}}
Architecture = dict[str, Any]


def check_architecture(
    path: Path, metadata: Mapping[str, str], teacher: Mapping[str, Any], model: type
) -> None:
    """Raise ValueError that names the first argument in which a teacher is not that of the file.

    metadata  Of the file; without the entry "architecture" there is nothing to check.
    teacher   The `teacher` section of a config.
    model     The class that `teacher.denoiser.model` names.
    """
    if "architecture" not in metadata:
        return
    recorded = _recorded(path, metadata["architecture"])
    if (kind := recorded["model"]["class"]) != model.__name__:
        raise ValueError(
            f"{path} is of a {kind}, and this configuration has a {model.__name__}; choose its "
            "teacher"
        )
    node = teacher["denoiser"]
    # Where the section has sigma_data at its top, the denoiser only refers to it, and that is the
    # key to type.
    section, written = (
        ("teacher", teacher) if "sigma_data" in teacher else ("teacher.denoiser", node)
    )
    _compare(path, section, {"sigma_data": recorded["arguments"]["sigma_data"]}, node, written)
    parameters = inspect.signature(model).parameters.values()
    # An argument that is left out is at its default, in the file as in the configuration.
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    wanted, got = defaults | recorded["model"]["arguments"], defaults | dict(node["model"])
    _compare(path, "teacher.denoiser.model", wanted, got, node["model"])


def _recorded(path: Path, text: str) -> Architecture:
    """What a file says of its network; raises ValueError where that is of another shape."""
    match found := parse_json(text.encode(), f"the architecture in {path}"):
        case {"model": {"class": str(), "arguments": dict()}, "arguments": {"sigma_data": _}}:
            return dict(found)
    raise ValueError(f"the architecture in {path} is damaged; import or fetch the file again")


def _compare(
    path: Path,
    section: str,
    wanted: Mapping[str, Any],
    got: Mapping[str, Any],
    written: Mapping[str, Any],
) -> None:
    """Raise at the first value of `wanted` that differs in `got`; `written` has the YAML's keys."""
    for name, value in wanted.items():
        # JSON has no tuples; defaults of a signature may be some.
        theirs, ours = (list(v) if isinstance(v, tuple) else v for v in (value, got.get(name)))
        if theirs != ours:
            theirs, ours = (json.dumps(v).replace(" ", "").strip('"') for v in (theirs, ours))
            # Hydra sets a key that is in the YAML, and wants a "+" to add one that is not.
            key = f"{'' if name in written else '+'}{section}.{name}={theirs}"
            raise ValueError(
                f"{path} is of a network with {name}={theirs}, and this configuration has "
                f"{name}={ours}; "
                f"type {key}, or choose the teacher that the file is of"
            )
