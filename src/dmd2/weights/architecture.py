"""What a file of weights says of the network that it is of, against what a configuration would
build.

Arguments such as sigma_data or a dropout leave no trace in the tensors' shapes, so that loading
alone misses them.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Architecture = dict[str, Any]
"""Class, arguments and inner model of a preconditioned network, as JSON holds them."""


def check_architecture(
    path: Path, metadata: Mapping[str, str], teacher: Mapping[str, Any], model: type
) -> None:
    """Raise ValueError that names the first constructor argument in which a teacher section is not
    the file's.

    `model` is the class that `teacher.denoiser.model` names. A file without the entry
    "architecture" says nothing.
    """
    if "architecture" not in metadata:
        return
    recorded = json.loads(metadata["architecture"])
    if (kind := recorded["model"]["class"]) != model.__name__:
        raise ValueError(
            f"{path} is of a {kind}, and this configuration has a {model.__name__}; choose its "
            "teacher"
        )
    node = teacher["denoiser"]
    section, written = (
        ("teacher", teacher) if "sigma_data" in teacher else ("teacher.denoiser", node)
    )
    _compare(path, section, {"sigma_data": recorded["arguments"]["sigma_data"]}, node, written)
    parameters = inspect.signature(model).parameters.values()
    # An argument that is left out is at its default, in the file as in the configuration.
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    wanted, got = defaults | recorded["model"]["arguments"], defaults | dict(node["model"])
    _compare(path, "teacher.denoiser.model", wanted, got, node["model"])


def _compare(
    path: Path,
    section: str,
    wanted: Mapping[str, Any],
    got: Mapping[str, Any],
    written: Mapping[str, Any],
) -> None:
    for name, value in wanted.items():
        theirs, ours = (list(v) if isinstance(v, tuple) else v for v in (value, got.get(name)))
        if theirs != ours:
            theirs, ours = (json.dumps(v).replace(" ", "").strip('"') for v in (theirs, ours))
            key = f"{'' if name in written else '+'}{section}.{name}={theirs}"
            raise ValueError(
                f"{path} is of a network with {name}={theirs}, and this configuration has "
                f"{name}={ours}; "
                f"type {key}, or choose the teacher that the file is of"
            )
