"""What a run differs in from others and from the defaults, by its resolved configuration, what that
was composed of, and its teacher's weights.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dmd2.config.folder import choices
from dmd2.config.keys import SECTIONS, is_among
from dmd2.config.typed import as_typed
from dmd2.config.words import skeleton
from dmd2.io.tensors import read_metadata
from dmd2.runs.config_file import read_config, without_sections

WATCHING = frozenset(
    {
        "seed",
        "name",
        "paths",
        "logger",
        "launcher",
        "callbacks",
        "checkpoint",
        "composed",
        "health",
        "log_every",
        "resume",
        "resume_allow",
    }
)
"""Sections that say how a run is watched, where it works and what was typed; and the seed."""

ABSENT = "absent"
"""The value of a key that a run lacks and others have."""

Leaves = Mapping[str, str]
Composition = tuple[Mapping[str, str], set[str]]
"""A run's choice from each group, and the keys that were typed, groups among them: "~KEY" for one
that was taken out.
"""


def composition_of(run: Path) -> Composition:
    """What a run's config.yaml says that it was composed of.

    Both parts are empty where an older version, or somebody else, has written it otherwise.
    """
    path = run / "config.yaml"
    found = read_config(path).get("composed") if path.exists() else None
    match found:
        case {"choices": dict(chosen), "overrides": list(words)}:
            # Of a group or a name that is not conf's nobody knows what it says.
            own = {
                group: name
                for group, name in chosen.items()
                if group in SECTIONS[""] and str(name) in choices(group)
            }
            keys = {str(word).lstrip("+").partition("=")[0] for word in words}
            return own, {key.removesuffix("._target_") for key in keys}
    return {}, set()


def leaves_of(run: Path) -> dict[str, str]:
    """All that makes a run what it is but for its seed, as one types it, by dotted key.

    Raises ValueError where the run's config.yaml is damaged; without one there is nothing to tell.
    """
    path = run / "config.yaml"
    if not path.exists():
        return {}
    config = read_config(path)
    found = dict(_flat(without_sections(config, WATCHING), ""))
    # The data's draws follow the run's seed, unless they were given one; a teacher's own stays.
    if found.get("data.seed") == as_typed(config.get("seed")):
        del found["data.seed"]
    # Of one name, but perhaps trained on another machine.
    teacher = read_metadata(run / "checkpoints" / "student.safetensors").get("teacher")
    return found | ({"teacher.sha256": teacher[:8]} if teacher else {})


def _flat(node: Any, path: str) -> list[tuple[str, str]]:
    if not isinstance(node, dict) or not node:
        return [(path, as_typed(node))]
    return [
        leaf
        for key, value in node.items()
        if key not in ("cache", "num_workers")  # where things are, and how they are read
        for leaf in _flat(value, f"{path}.{key}".lstrip("."))
    ]


def by_choices(runs: Sequence[Leaves], composed: Sequence[Composition]) -> list[Leaves]:
    """The leaves of runs with a choice from a group in place of what it says, e.g. loss=sida.

    composed  The `composition_of` each run. Of a group's section only leaves go that are the same
              in all runs of a choice, and that nobody typed; what somebody took out is a leaf. How
              runs are watched and scored is named elsewhere.
    """
    found: list[Leaves] = [
        {**run, **dict.fromkeys((key for key in keys if key.startswith("~")), "taken out")}
        for run, (_, keys) in zip(runs, composed, strict=True)
    ]
    typed = {key.lstrip("~") for own, keys in composed for key in keys - {*own}}
    groups = set.intersection(*(set(own) for own, _ in composed))
    for group in sorted(groups - WATCHING - {"metric", "experiment"}):
        names = [own[group] for own, _ in composed]
        below = {
            key
            for run in runs
            for key in run
            if key.startswith(f"{group}.") and not is_among(key, typed)
        }
        said = {key for key in below if _is_function([run.get(key) for run in runs], names)}
        found = [
            {key: value for key, value in run.items() if key not in said} | {group: name}
            for run, name in zip(found, names, strict=True)
        ]
    return found


def _is_function(values: Sequence[Any], of: Sequence[Any]) -> bool:
    """Whether rows that are alike in `of` are alike in `values`."""
    return len({*zip(of, values, strict=True)}) == len({*of})


def differences(runs: list[Leaves]) -> list[dict[str, str]]:
    """What each of these differs in from the others, by dotted key; empty for one.

    A call is named by its section, e.g. loss.views.critic=dmd2.diffusion.LogNormalSigma; arguments
    that only one of two calls takes follow from it, and so do keys of a section that others lack.
    """
    runs = [{key.removesuffix("._target_"): value for key, value in run.items()} for run in runs]
    columns: dict[tuple[str, ...], str] = {}
    # Short keys first: of numbers that are equal in every run, as interpolations are, one is named.
    for key in sorted({key for run in runs for key in run}, key=lambda key: (key.count("."), key)):
        values = tuple(run.get(key, ABSENT) for run in runs)
        if len(set(values)) > 1 and not _follows(key, values, columns):
            are_numbers = all(value.replace(".", "").isdigit() for value in values)
            columns.setdefault(values if are_numbers else (*values, key), key)
    return [{key: values[i] for values, key in columns.items()} for i in range(len(runs))]


def _follows(key: str, values: tuple[str, ...], differing: Mapping[tuple[str, ...], str]) -> bool:
    """Whether a key is in some runs alone, equal in these, below a key that says in which."""
    above = [own for own, name in differing.items() if key.startswith(f"{name}.")]
    is_said = any(_is_function(values, own[: len(values)]) for own in above)
    return is_said and ABSENT in values and len(set(values)) == 2


def changed(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Where a run's configuration is not its experiment's: dotted key, value there, value here.

    Empty where the experiment is not one of conf/. What follows another key is not named.
    """
    defaults = _defaults(config["name"])
    if not defaults:
        return []
    told = {key: node for key, node in config.items() if key not in ("paths", "composed")}
    here = _flat(told, "")
    beside = [(key, _default_of(key, defaults), value) for key, value in here]
    return [row for row in beside if row[1] != row[2] and "${" not in row[1]]


def _default_of(key: str, defaults: Leaves) -> str:
    """The default of a key or, where that is none, of the section that stands for all in it."""
    parts = key.split(".")
    above = (".".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((defaults[name] for name in above if name in defaults), ABSENT)


@lru_cache(maxsize=8)
def _defaults(experiment: str) -> dict[str, str]:
    return dict(_flat(skeleton("train", [f"experiment={experiment}"]), ""))
