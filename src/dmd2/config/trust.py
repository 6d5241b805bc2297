"""A config is a program: its `_target_` names are called. What it may name unasked is said here."""

import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dmd2.config.folder import config_folder

OWN = (
    "dmd2.data",
    "dmd2.diffusion",
    "dmd2.evaluation",
    "dmd2.losses",
    "dmd2.metrics",
    "dmd2.nets",
    "dmd2.nets.text",
    "dmd2.training",
    "dmd2.training.callbacks",
)
"""Packages whose exported classes a config may name, by the exported address alone."""
LIBRARIES = {
    "diffusers": "torch.nn.Module",
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
}
"""Packages of others whose classes below a base class a config may name."""
WRITERS = ("dmd2.data.PairWriter",)
"""Exported classes that no config names, and that write where their arguments say."""
OTHER_VERBS = ("part", "recipe")
"""Groups of `conf` that are no part of a run's config: what they name reads and writes files."""
VARIABLE = "DMD2_TRUSTED_PACKAGES"
"""The user's own packages, e.g. "my_nets,lab.losses". In the environment: no config can set it."""


def check_trusted(path: Path, config: Any) -> None:
    """Refuse the config file of a run that may be somebody else's program.

    Raises ValueError where the file belongs to another user, names what no config here is meant to
    name (`is_known`), or computes values by resolvers, which could make a name of its own.
    """
    remedy = "look into it, and where you trust it type trust=true"
    owner = path.stat().st_uid
    # root's files are the system's, and root may read its users' runs no less than they.
    if owner not in (os.getuid(), 0):
        raise ValueError(
            f"{path} belongs to another user (number {owner}), and a config is a program; {remedy}"
        )
    for text in texts(config):
        # OmegaConf's ${oc.create:{_target_: os.mkdir}} becomes a call when it is read. A run's own
        # config.yaml is written after all of them were computed.
        if re.search(r"\$\{.*:", text, re.DOTALL):
            raise ValueError(f"{path} computes {text!r}, which may hide a call; {remedy}")
    for target in targets(config):
        if not is_known(target):
            own = target.partition(".")[0]
            raise ValueError(
                f"{path} calls {target}, which is no part of this program that a config names; "
                f"{remedy}, or for a package of your own set {VARIABLE}={own}"
            )


def is_known(target: str) -> bool:
    """Whether a config may name a `_target_` unasked.

    That is what `conf` names, a class that a package of `OWN` exports, one of `LIBRARIES`, and what
    was defined in a package that the user set in `VARIABLE`.
    """
    if target in _named_in_conf():
        return True
    package, _, name = target.rpartition(".")
    if package in OWN:
        exporter = import_module(package)
        is_class = name in exporter.__all__ and inspect.isclass(getattr(exporter, name))
        return is_class and target not in WRITERS
    if package in LIBRARIES:
        # One name in one package: a longer one may walk on through what a module has imported.
        found, base = _resolved(target), resolve_name(LIBRARIES[package])
        return inspect.isclass(found) and issubclass(found, base)
    for trusted in filter(None, re.split(r"[,\s]+", os.environ.get(VARIABLE, ""))):
        if target.startswith(f"{trusted}."):
            defined = str(getattr(_resolved(target), "__module__", ""))
            return defined == trusted or defined.startswith(f"{trusted}.")
    return False


@cache
def _named_in_conf() -> frozenset[str]:
    """Every `_target_` of the YAML files that a run's config is composed of."""
    named = set[str]()
    for path in config_folder().rglob("*.yaml"):
        if path.parent.name not in OTHER_VERBS:
            named.update(re.findall(r"_target_: *([\w.]+)", path.read_text(encoding="utf-8")))
    return frozenset(named)


def _resolved(target: str) -> Any:
    """What a name stands for, imported; None where there is nothing of this name."""
    try:
        return resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return None


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node of plain containers."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from targets(inner)


def texts(node: Any) -> Iterator[str]:
    """Every text below a node of plain containers, keys among them."""
    if isinstance(node, dict):
        node = [*node, *node.values()]
    if isinstance(node, list):
        for inner in node:
            yield from texts(inner)
    elif isinstance(node, str):
        yield node
