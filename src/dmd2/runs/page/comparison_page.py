"""The page of many runs, comparison.html: their scores, their curves, and pictures of the best."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from dmd2.runs.group import Group, Groups
from dmd2.runs.groups import costs_of, metrics_of, references
from dmd2.runs.page.curves import (
    MAX_POINTS,
    Points,
    add_references,
    chart,
    curve,
    group_of,
    in_order,
    number,
    points_of,
)
from dmd2.runs.page.pictures import MAX_GRID_BYTES, MAX_GRIDS, data_uri, grids_of
from dmd2.runs.page.render import render
from dmd2.runs.page.score_cells import Row, table
from dmd2.runs.score_table import cell, spread
from dmd2.training.callbacks.csv_logger import read_rows

MAX_POINTS_TOGETHER = 60_000
"""Points that all curves of a page have together, about; a curve always has some."""


def comparison_page(groups: Groups, title: str, failures: Sequence[str]) -> str:
    """The page of groups of runs, the best first, as HTML.

    failures  Lines on what did not complete.
    """
    names, primary = metrics_of(groups), groups[0].primary
    known = references(groups, names)
    found = in_order([*comparison_charts(groups), *varied_charts(groups)], primary)
    # Those of one group alone would be read as everybody's.
    add_references(found, [row for row in known if ", of " not in row[0]])
    shown = table(names, [row_of(group, names) for group in groups])
    return render(
        "comparison.html.jinja",
        title=title,
        num_runs=sum(len(group.folders) for group in groups),
        varied=list(dict.fromkeys(key for group in groups for key in group.differences)),
        costs=costs_of(groups),
        table=shown,
        rows=list(zip(groups, shown.rows, strict=True)),
        references=[(label, [cell(scores, name) for name in names]) for label, scores in known],
        pictures=list(pictures(groups)),
        failures=failures,
        data={"charts": found, "primary": primary, "legends": "primary"},
    )


def row_of(group: Group, names: Sequence[str]) -> Row:
    """The row of a group: means, with their standard deviations."""
    values = {name: found for name in names if (found := group.values(name))}
    return Row(
        group.name,
        {name: mean(found) for name, found in values.items()},
        {name: spread(found) for name, found in values.items()},
        competes=True,
    )


def comparison_charts(groups: Groups) -> list[dict[str, Any]]:
    """A chart for each number that runs have logged: a curve a run, a colour a group."""
    logs = [
        (i, group.name, run_points(run, summary.get("weights")))
        for i, group in enumerate(groups)
        for run, summary in zip(group.folders, group.summaries, strict=True)
    ]
    num_curves = sum(len(points) for *_, points in logs)
    num = max(20, min(MAX_POINTS, MAX_POINTS_TOGETHER // max(1, num_curves)))
    found: dict[str, dict[str, Any]] = {}
    for i, name, points in logs:
        for key, one in points.items():
            title = key.rpartition("/")[2] if group_of(key) == "Quality" else key
            place = found.setdefault(title, chart(title, group_of(key)))
            place["curves"].append(curve(name, one, num, group=i))
    return list(found.values())


def varied_charts(groups: Groups) -> list[dict[str, Any]]:
    """A chart for each key that groups differ in: its values, and the primary score of each run."""
    found = []
    for key in dict.fromkeys(key for group in groups for key in group.differences):
        # A group of another experiment may not differ in it.
        values = [number_or_text(group.differences.get(key, "")) for group in groups]
        if any(isinstance(value, str) for value in values):
            values = list(map(str, values))
        place = chart(key, "What varied") | {"axis": key, "text": f"and {groups[0].primary}"}
        for i, (group, value) in enumerate(zip(groups, values, strict=True)):
            if y := group.values(group.primary):
                dots = {"name": group.name, "group": i, "x": [value] * len(y), "y": y}
                place["curves"].append(dots)
        found.append(place)
    return [place for place in found if place["curves"]]


def number_or_text(text: str) -> float | str:
    """A value of a configuration as a chart takes it."""
    value = number(text)
    return text if value is None else value


def run_points(run: Path, weights: str | None) -> dict[str, Points]:
    """The numbers in a run's log; of scores those of the weights that runs are judged by."""
    try:
        found = points_of(read_rows(run / "metrics.csv"))
    except (ValueError, OSError) as error:
        print(f"left out: {error}")
        return {}
    judged = f"score/{weights}/"
    return {
        key: points
        for key, points in found.items()
        if group_of(key) != "Quality" or key.startswith(judged)
    }


def pictures(groups: Groups) -> Iterator[dict[str, str]]:
    """A grid of samples of each group's best run, near its best score, while they are small."""
    room = MAX_GRID_BYTES
    for group in groups[:MAX_GRIDS]:
        run, summary = group.best()
        if not (grids := grids_of(run)):
            continue
        at = (summary.get("best") or {}).get("iteration", int(grids[-1].stem))
        path = min(grids, key=lambda grid: abs(int(grid.stem) - at))
        room -= path.stat().st_size
        if room < 0:
            return
        yield {
            "name": group.name,
            "iteration": str(int(path.stem)),
            "folder": str(run),
            "picture": data_uri(path),
        }
