"""Charts of scores by class: bars of few classes; of many, how many classes have which score."""

from collections.abc import Mapping
from typing import Any

from dmd2.runs.page.curves import chart, number

MAX_BARS = 30
"""Classes that get a bar each, at most; more are counted by their score."""
MAX_NAME = 16
"""Characters that are shown of a class's number and name."""


def class_charts(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chart for each score that is known by class: the student beside teacher and real data."""
    rows = shown(summary.get("by_class") or {}, summary.get("weights"))
    names = dict.fromkeys(key.rpartition("/")[2] for scores in rows.values() for key in scores)
    known = summary.get("class_names") or {}
    found = [one_chart(name, rows, known) for name in names]
    # Of one class alone the table says all.
    return [one for one in found if max(len(bars["x"]) for bars in one["curves"]) > 1]


def shown(rows: Mapping[str, Any], weights: str | None) -> dict[str, Mapping[str, float]]:
    """Real data, the last row of the teacher, and the weights that runs are judged by."""
    teachers = [label for label in rows if label.startswith("teacher")]
    labels = ["real, held out", *teachers[-1:], f"student, {weights}"]
    return {label: rows[label] for label in labels if label in rows}


def one_chart(
    name: str, rows: Mapping[str, Mapping[str, float]], known: Mapping[str, str]
) -> dict[str, Any]:
    """The chart of one score: bars by class, or of many classes their numbers by score.

    known  Names of classes by their number; others are called by it.
    """
    place = chart(name, "Quality by class")
    place |= {"title": f"{name} by class", "kind": "bars", "axis": "class"}
    for i, (label, scores) in enumerate(rows.items()):
        own = {key.rpartition("/")[0]: y for key, y in scores.items() if key.endswith(f"/{name}")}
        x = sorted(own, key=lambda one: (len(one), one))  # class 2 before class 10
        y = [number(f"{own[one]:.5g}") for one in x]
        # The number besides, which `dmd2 sample` takes, and which tells two of one name apart.
        labels = [f"{one} {known.get(one, '')}".strip()[:MAX_NAME] for one in x]
        place["curves"].append({"name": label, "group": i, "x": labels, "y": y})
    if max(len(bars["x"]) for bars in place["curves"]) > MAX_BARS:
        place |= {"kind": "counts", "axis": f"{name}, and how many classes have it"}
    return place
