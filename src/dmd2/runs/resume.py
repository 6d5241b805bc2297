"""Going on with a run: from which checkpoint, and whether it is the same run."""

from pathlib import Path
from typing import Any

from dmd2.config.check import Config
from dmd2.training.checkpoints import Manifest, check, newest

FREE = frozenset(
    {
        "name",
        "paths",
        "logger",
        "callbacks",
        "checkpoint",
        "trainer",
        "launcher",
        "metric",
        "log_every",
        "max_skipped_updates",
        "resume",
        "resume_allow",
    }
)
"""Sections that say how a run is watched and where it works, not what it computes."""
PLACES = frozenset({"cache", "weights", "critic_weights", "num_workers"})
"""Keys anywhere that say where things are: data and teacher are compared by their hashes, starts
are behind.
"""


def checkpoint_of(config: Config) -> Path | None:
    """The checkpoint that `resume` asks for; None begins anew.

    Raises ValueError where the run's directory holds a run and nothing was asked, or the checkpoint
    is damaged.
    """
    folder, choice = Path(config["paths"]["run"]), config["resume"]
    if choice == "auto":
        return newest(folder / "checkpoints")
    if choice is not None:
        check(Path(choice))
        return Path(choice)
    if (folder / "config.yaml").exists():
        raise ValueError(
            f"{folder} holds a run already; go on with it: resume=auto, or name another: "
            "paths.run=DIR"
        )
    return None


def meaning(config: Config, data: dict[str, Any], world_size: int) -> Manifest:
    """What must not change between a run's lives: the configuration of what it computes, data and
    processes.
    """
    computed = {key: value for key, value in config.items() if key not in FREE}
    return {"config": computed, "dataset": data, "world_size": world_size}


def check_resumable(before: Manifest, now: Manifest, allowed: list[str]) -> None:
    """Raise ValueError that names what differs from a checkpoint's manifest and is not among
    `allowed`.
    """
    old, new = flat({key: before.get(key) for key in now}), flat(now)
    changed = {
        key.removeprefix("config."): key
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    refused = sorted(
        key for key in changed if not any(f"{key}.".startswith(f"{name}.") for name in allowed)
    )
    if refused:
        words = "; ".join(
            f"{key} was {old.get(changed[key])} and is {new.get(changed[key])}" for key in refused
        )
        raise ValueError(
            f"this checkpoint is of another run: {words}; if meant: "
            f"resume_allow=[{','.join(refused)}]"
        )


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted path."""
    if not isinstance(node, dict):
        return {path: node}
    kept = {key: value for key, value in node.items() if key not in PLACES}
    return {
        k: v
        for key, value in kept.items()
        for k, v in flat(value, f"{path}.{key}".lstrip(".")).items()
    }
