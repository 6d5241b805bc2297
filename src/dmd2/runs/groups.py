"""Runs below a folder, in groups that differ by their seeds only: scored ones, and others apart."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

from dmd2.config.keys import is_among
from dmd2.evaluation.scores import Scores
from dmd2.io.shown import printable_line
from dmd2.runs.differences import (
    Composition,
    Leaves,
    by_choices,
    composition_of,
    differences,
    leaves_of,
)
from dmd2.runs.group import COSTS, Group, Groups
from dmd2.runs.score_table import cell, rows
from dmd2.runs.summary import flaw, read_summary


def gather(folder: Path) -> Groups:
    """The runs below a folder that can be compared; the others are named on the console."""
    runs = list(_comparable(folder))
    # The metric of most runs: the odd one may be the first.
    primaries = Counter(s["primary"] for _, s, _ in runs if s["metrics"]).most_common(1)
    found: dict[tuple[str, frozenset[tuple[str, str]], bool], Group] = {}
    for run, summary, leaves in runs:
        is_scored = bool(summary["metrics"])
        if is_scored and summary["primary"] != (usual := primaries[0][0]):
            _leave_out(f"{run} is scored by {summary['primary']}, others by {usual}")
            continue
        experiment = summary["experiment"]
        # How a run would have been scored does not matter where it was not.
        what = leaves if is_scored else _trained(leaves)
        key = experiment, frozenset(what.items()), is_scored
        group = found.setdefault(key, Group(experiment))
        group.folders.append(run)
        group.summaries.append(summary)
    for group in found.values():
        _leave_repeats_out(group)
    for experiment in {name for name, *_ in found}:
        keys = [key for key in found if key[0] == experiment]
        composed = [composition_of(found[key].folders[0]) for key in keys]
        alike = dict(zip(keys, by_choices([dict(key[1]) for key in keys], composed), strict=True))
        trained = {key: _trained(leaves) for key, leaves in alike.items()}
        # How scores are made is compared among the scored runs alone.
        scored = {
            k: dict(leaves.items() - trained[k].items()) for k, leaves in alike.items() if k[2]
        }
        for part in (trained, scored):
            for place, own in zip(part, differences([*part.values()]), strict=True):
                found[place].differences |= own
        _name_by_typed([found[key] for key in keys], composed)
    return sorted(
        found.values(),
        key=lambda group: mean(group.values(group.primary)) if group.is_scored else inf,
    )


def _name_by_typed(groups: Groups, composed: Sequence[Composition]) -> None:
    """Name groups of an experiment by what was typed, if that tells them apart.

    Other differences are of defaults, and are not named. A choice is named where somebody typed it,
    for this group or another, and where those who typed none differ in it.
    """
    # A key of `choices` is a group of conf/.
    chosen = [(key, name, key in typed) for own, typed in composed for key, name in own.items()]
    said = {(key, name) for key, name, is_typed in chosen if is_typed}
    defaults = {(key, name) for key, name, is_typed in chosen if not is_typed}
    usual = Counter(key for key, _ in defaults)
    for group, (choices, typed) in zip(groups, composed, strict=True):
        named = {key for key, name in choices.items() if (key, name) in said or usual[key] > 1}
        # A choice that was typed names itself, and not each key in it.
        keys = typed - {*choices}
        group.named = {key for key in group.differences if key in named or is_among(key, keys)}
    is_known = all(choices for choices, _ in composed)
    if not is_known or len({group.name for group in groups}) < len(groups):
        for group in groups:
            group.named = None


def _leave_repeats_out(group: Group) -> None:
    """Keep of each seed the newest run, if possible a completed one, and name the others.

    Nothing tells them apart: averaged as two runs they would make the spread smaller than it is. A
    summary without a seed stays.
    """
    runs = list(zip(group.folders, group.summaries, strict=True))
    # Of each seed the last one stays.
    newest = {
        folder if (seed := summary.get("seed")) is None else seed: folder
        for folder, summary in sorted(
            runs, key=lambda run: (run[1]["status"] == "completed", _written(run[0]))
        )
    }
    kept = {*newest.values()}
    if repeats := [str(folder) for folder in group.folders if folder not in kept]:
        _leave_out(f"{', '.join(repeats)}: other runs are the same, seed included")
    group.folders, group.summaries = map(list, zip(*(r for r in runs if r[0] in kept), strict=True))


def _leave_out(what: str) -> None:
    # Runs may be another person's, and so their words.
    print(printable_line(f"left out: {what}"))


def _written(run: Path) -> float:
    return (run / "summary.json").stat().st_mtime


def _trained(leaves: Leaves) -> dict[str, str]:
    """What a run trains, without how it is scored."""
    return {key: value for key, value in leaves.items() if not key.startswith("metric.")}


def costs_of(groups: Groups) -> list[str]:
    """The `COSTS` that some run says; one of an older version does not."""
    return [name for name in COSTS if any(group.cost(name) for group in groups)]


def metrics_of(groups: Groups) -> list[str]:
    """The names of the scores that some run has, the primary one first."""
    names = {name for group in groups for one in group.summaries for name in one["metrics"]}
    return sorted(names, key=lambda name: (name != groups[0].primary, name))


def references(groups: Groups, names: list[str]) -> list[tuple[str, Scores]]:
    """What scores are read against; what differs between groups is named with its group."""
    found: dict[str, dict[tuple[str, ...], tuple[str, Scores]]] = {}
    for group in groups:
        for label, scores in rows(group.summaries[0]) if group.is_scored else []:
            # The rows of `rows` whose label begins so are this one run's own scores.
            if not label.startswith("student"):
                cells = tuple(cell(scores, name) for name in names)
                found.setdefault(label, {}).setdefault(cells, (group.name, scores))
    return [
        (label if len(alike) == 1 else f"{label}, of {name}", scores)
        for label, alike in found.items()
        for name, scores in alike.values()
    ]


def _comparable(folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, str]]]:
    """The runs below a folder that can be compared; the others are named."""
    for path in sorted(folder.rglob("summary.json")):
        if path.parent.is_symlink():  # `latest`, which is another directory's second name
            continue
        try:
            summary, leaves = read_summary(path), leaves_of(path.parent)
        except (ValueError, OSError) as error:
            _leave_out(str(error))
            continue
        if why := flaw(summary):
            # A job of a sweep says so by itself, with its error.
            if not (path.parent / "error.txt").exists():
                _leave_out(f"{path.parent} {why}")
            continue
        # Of a run without a configuration nobody knows what it is: it is averaged with no other.
        yield path.parent, summary, leaves or {"run": str(path.parent)}
