"""Resuming a run: from which checkpoint, and whether it is the same run."""

from pathlib import Path
from typing import Any

from dmd2.config.check import Config
from dmd2.config.keys import is_among
from dmd2.config.memory import MEMORY_KEYS
from dmd2.config.typed import as_typed
from dmd2.io.files import without_places
from dmd2.runs.assemble import Parts
from dmd2.runs.config_file import without_sections
from dmd2.runs.pipeline_source import files_said, is_said
from dmd2.training.checkpoints import Manifest, Verified, newest, verify

NOT_COMPARED = frozenset(
    {
        "name",
        "paths",
        "logger",
        "callbacks",
        "composed",
        "health",
        "checkpoint",
        "trainer",
        "memory",
        "tf32",
        "launcher",
        "metric",
        "log_every",
        "max_skipped_updates",
        "resume",
        "resume_allow",
    }
)
"""Sections that say how a run is watched and where it works, not what it computes."""
PATH_KEYS = frozenset({"cache", "weights", "critic_weights", "num_workers"}) | MEMORY_KEYS
"""Keys anywhere that say where things are, or in what memory the same is computed.

Data and teacher are compared by their hashes, and what a run started from is behind it.
"""

MAX_NAMED = 5
"""Keys that are named of a run that is not the checkpoint's."""


def checkpoint_of(config: Config) -> Verified | None:
    """The checkpoint that `resume` asks for; None begins anew.

    Raises ValueError where the run's directory holds a run and nothing was asked, or the checkpoint
    is damaged, of `auto` every one that there is.
    """
    folder, choice = Path(config["paths"]["run"]), config["resume"]
    if choice == "auto":
        # None where there is none yet: the run then begins. Not so where all are damaged: what a
        # person may still want to mend would be written over.
        try:
            return newest(folder / "checkpoints")
        except ValueError as error:
            raise ValueError(
                f"{error}; to begin anew type resume=null paths.run=DIR, with another folder"
            ) from error
    if choice is not None:
        return verify(Path(choice))
    if (folder / "config.yaml").exists():
        raise ValueError(
            f"{folder} holds a run already; go on with it: resume=auto, or name another: "
            "paths.run=DIR"
        )
    return None


def resume_identity(config: Config, data: dict[str, Any], world_size: int) -> Manifest:
    """What must stay the same when a run is resumed: what it computes, its data and processes."""
    # A longer run, another logger or device are the same run.
    computed = without_sections(config, NOT_COMPARED)
    return {"config": without_places(computed), "dataset": data, "world_size": world_size}


def with_teacher(identity: Manifest, parts: Parts) -> Manifest:
    """What must stay the same when a run is resumed, with the hashes of its teacher's weights, and
    of what its pipeline says beside them.
    """
    said = files_said(identity["config"]["teacher"].get("source"))
    return identity | {"teacher": parts.teacher.sha256, "pipeline": said}


def check_resumable(before: Manifest, now: Manifest, allowed: list[str]) -> None:
    """Raise ValueError that names what differs from a checkpoint's manifest.

    allowed  Dotted keys that may differ, with all below them.
    """
    # Only what both know is compared: a manifest of another version may have other keys.
    known = before.keys() & now.keys()
    if "pipeline" in known:
        own = {name: value for name, value in before["pipeline"].items() if is_said(name)}
        before = {**before, "pipeline": own}
    old, new = (flat({key: manifest[key] for key in known}) for manifest in (before, now))
    changed = {
        key.removeprefix("config."): key
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    refused = sorted(key for key in changed if not is_among(key, allowed))
    if refused:
        words = [
            f"{key} was {as_typed(old.get(changed[key]))} and is {as_typed(new.get(changed[key]))}"
            for key in refused
        ]
        keys = refused
        if (num_left := len(words) - MAX_NAMED) > 0:
            words = [*words[:MAX_NAMED], f"and {num_left} keys more"]
            # A section allows all below it.
            keys = sorted({key.partition(".")[0] for key in refused})
        raise ValueError(
            f"this checkpoint is of another run: {'; '.join(words)}; for a run of its own type "
            f"paths.run=DIR, if meant resume_allow=[{','.join(keys)}]"
        )


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted path."""
    if not isinstance(node, dict):
        return {path: node}
    compared = {key: value for key, value in node.items() if key not in PATH_KEYS}
    return {
        k: v
        for key, value in compared.items()
        for k, v in flat(value, f"{path}.{key}".lstrip(".")).items()
    }
