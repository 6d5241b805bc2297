"""A config is a program: its `_target_` names are called. What it may name unasked is said here."""

import os
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

KNOWN = (
    "diffusers.SD3Transformer2DModel",
    "diffusers.UNet2DConditionModel",
    "dmd2.",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.dmd2_launcher.",
    "lightning.Trainer",
    "torch.nn.",
    "torch.optim.",
)
"""Classes, and beginnings of the names of such, that do nothing but what this program does."""


def check_trusted(path: Path, config: Any) -> None:
    """Refuse the config file of a run that may be somebody else's program.

    Raises ValueError where the file belongs to another user, or names a class outside `KNOWN`.
    """
    remedy = "look into it, and where you trust it type trust=true"
    owner = path.stat().st_uid
    # root's files are the system's, and root may read its users' runs no less than they.
    if owner not in (os.getuid(), 0):
        raise ValueError(
            f"{path} belongs to another user (number {owner}), and a config is a program; {remedy}"
        )
    for target in targets(config):
        if not is_known(target):
            raise ValueError(f"{path} calls {target}, which is no part of this program; {remedy}")


def is_known(target: str) -> bool:
    """Whether a `_target_` is below `KNOWN`, by its name and by where it was defined."""
    if target in KNOWN or not target.startswith(KNOWN):
        return target in KNOWN
    try:
        # A name may walk on through what a module has imported, e.g. dmd2.io.files.shutil.rmtree.
        # This imports modules of known packages alone: the walk starts in one.
        defined = str(getattr(resolve_name(target), "__module__", ""))
    except (ImportError, AttributeError, ValueError):  # there is nothing of this name
        return False
    return defined.partition(".")[0] == target.partition(".")[0]


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node of plain containers."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from targets(inner)
