"""Rows and columns of the score table: on the console, in report.html, on the model card."""

import sys
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from dmd2.evaluation.scores import Scores

WIDTH = 200
"""Columns of a table where there is no terminal."""


def print_table(summary: Mapping[str, Any], primary: str) -> None:
    """Print the scores of a run's summary with their references on the console."""
    title = f"{summary['experiment']}: {summary['status']} after {summary['iterations']} iterations"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    names = columns(summary, primary)
    table.add_column("samples", no_wrap=True)
    for name in names:
        # A heading may break between its words, but not inside one: many metrics then still fit
        # into 80 columns.
        longest = max(map(len, name.split("_")))
        table.add_column(name.replace("_", " "), justify="right", min_width=longest)
    for label, scores in rows(summary):
        table.add_row(label, *(cell(scores, name) for name in names))
    # A file or a pipe has no edge to fold at; a narrow one would lose the last metrics.
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    # A summary of an older version, or of a run without scores, has none.
    if found := summary.get("best"):
        print(f"best of {found['of']} scored: {primary} {found[primary]:.3g} of {found['weights']}")


def cell(scores: Scores, name: str) -> str:
    """A score to three digits; empty where there is none, e.g. of another number of samples."""
    return _rounded(scores[name], 3) if name in scores else ""


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; empty where there are none.

    >>> spread([1.19, 1.27]), spread([12_345.0, 12_204.0]), spread([0.5])
    ('1.23 ± 0.057', '12,274 ± 100', '0.5')
    """
    if not values:
        return ""
    text = _rounded(mean(values), 3)
    return text if len(values) == 1 else f"{text} ± {_rounded(stdev(values), 2)}"


def _rounded(value: float, num_digits: int) -> str:
    text = f"{value:.{num_digits}g}"
    return f"{value:,.0f}" if "e+" in text else text  # 1.23e+04 is hard to read


def columns(summary: Mapping[str, Any], primary: str) -> list[str]:
    """The names of the metrics, the primary one first."""
    return sorted(summary["metrics"], key=lambda name: (name != primary, name))


def rows(summary: Mapping[str, Any]) -> list[tuple[str, Scores]]:
    """Scores by label, in the order of the table: real data, baselines, teacher, student."""
    # report.html and the comparison of runs know the student's rows by how their labels begin.
    found: list[tuple[str, Scores]] = []
    if summary["floor"]:
        found.append(("real, held out", summary["floor"]))
    found += [(name.replace("_", " "), scores) for name, scores in summary["baselines"].items()]
    found += [(f"teacher, {n} NFE", scores) for n, scores in summary["teacher"].items()]
    found += [(f"student, {name}", scores) for name, scores in summary["students"].items()]
    return found
