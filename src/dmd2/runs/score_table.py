"""Scores beside their references as a table: on the console, on the page, on an exported card."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dmd2.evaluation.scores import Scores


def print_table(summary: Mapping[str, Any], primary: str) -> None:
    """The scores of a summary beside their references, on the console."""
    title = f"{summary['experiment']}: {summary['status']} after {summary['iterations']} iterations"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    names = columns(summary, primary)
    table.add_column("samples", no_wrap=True)
    for name in names:
        # A heading may break between its words, but not inside one.
        longest = max(map(len, name.split("_")))
        table.add_column(name.replace("_", " "), justify="right", min_width=longest)
    for label, scores in rows(summary):
        table.add_row(label, *(cell(scores, name) for name in names))
    Console().print(table)
    if found := summary.get("best"):
        print(f"best of {found['of']} scored: {primary} {found[primary]:.3g} of {found['weights']}")


def cell(scores: Scores, name: str) -> str:
    """A score as a table shows it; empty where it was not made, e.g. of other sample counts."""
    return f"{scores[name]:.3g}" if name in scores else ""


def columns(summary: Mapping[str, Any], primary: str) -> list[str]:
    """The names of the metrics, the primary one first."""
    return sorted(summary["metrics"], key=lambda name: (name != primary, name))


def rows(summary: Mapping[str, Any]) -> list[tuple[str, Scores]]:
    """Labelled scores to read together: real data, baselines, the teacher, the student."""
    found: list[tuple[str, Scores]] = []
    if summary["floor"]:
        found.append(("real, held out", summary["floor"]))
    found += [(name.replace("_", " "), scores) for name, scores in summary["baselines"].items()]
    found += [(f"teacher, {n} NFE", scores) for n, scores in summary["teacher"].items()]
    found += [(f"student, {name}", scores) for name, scores in summary["students"].items()]
    return found
