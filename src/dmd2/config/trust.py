"""A config is a program: its `_target_` names are called. What it may name unasked is said here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KNOWN = (
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
        # A name of many parts could walk from a known package to any other, as dmd2.x.os.system.
        named = target.startswith(KNOWN) and not {"os", "sys", "subprocess", "builtins"} & set(
            target.split(".")
        )
        if not named:
            raise ValueError(f"{path} calls {target}, which is no part of this program; {remedy}")


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node of plain containers."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from targets(inner)
