"""One table and one picture of many runs: mean and spread over seeds, beside real data and the teacher.

usage: dmd2 compare runs=DIR [out=DIR]

  runs   A folder that holds run directories, at any depth, e.g. runs/sweeps/TIME.
  out    Folder whose README.md gets the table, between its two table marks, and scores.png; null only prints.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import hydra
from omegaconf import DictConfig

from dmd2.config import check_options, config_folder
from dmd2.errors import answered
from dmd2.pictures import bars
from dmd2.report import cell, rows


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="compare")
@answered
def main(options: DictConfig) -> None:
    """Gather the summaries and print the table."""
    check_options(options, "compare")
    summaries = gather(Path(options.runs))
    lines = table(summaries)
    print("\n".join(lines))
    if options.out is not None:
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        fill(out / "README.md", lines)
        primary = next(iter(summaries.values()))[0]["primary"]
        bars(
            {name: [s["metrics"][primary] for s in found] for name, found in summaries.items()},
            primary,
            out / "scores.png",
        )


MARKS = ("<!-- table -->", "<!-- end of table -->")


def fill(page: Path, lines: list[str]) -> None:
    """Put the table between the two marks of a page; a page without them, or a new one, gets it at its end."""
    text = page.read_text() if page.exists() else ""
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text("\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + (after or "\n")]))


def gather(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The summaries of completed runs below a folder, by experiment; a run that failed is named on the console."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.rglob("summary.json")):
        summary = json.loads(path.read_text())
        if path.parent.is_symlink():
            continue
        if summary["status"] != "completed":
            print(f"left out: {path.parent} {summary['status']}")
            continue
        found.setdefault(summary["experiment"], []).append(summary)
    if not found:
        raise FileNotFoundError(f"there is no completed run below {folder}; e.g. runs=runs/sweeps/TIME")
    return found


def table(summaries: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Markdown lines: references first, then each experiment's mean and spread (standard deviation) over its runs."""
    first = next(iter(summaries.values()))[0]
    names = sorted(first["metrics"], key=lambda name: (name != first["primary"], name))
    lines = ["| samples | runs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for label, scores in rows(first):
        if not label.startswith("student"):
            lines.append(f"| {label} | | " + " | ".join(cell(scores, name) for name in names) + " |")
    ordered = sorted(summaries.items(), key=lambda item: mean([s["metrics"][first["primary"]] for s in item[1]]))
    for experiment, found in ordered:
        cells = [spread([summary["metrics"][name] for summary in found]) for name in names]
        lines.append(f"| {experiment} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation, e.g. "1.23 ± 0.04"."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"
