"""Many runs in one table and one picture; a sweep's jobs that did not complete are named."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dmd2.evaluation.pictures import bars
from dmd2.io.files import read_json
from dmd2.runs.job import read_jobs
from dmd2.runs.score_table import cell, rows

MARKS = ("<!-- table -->", "<!-- end of table -->")
LOG_LINES = 12

Summaries = dict[str, list[dict[str, Any]]]
"""Summaries of completed runs, by what the runs are seeds of."""


def gather(folder: Path) -> Summaries:
    """The summaries of completed runs below a folder, by experiment and what a sweep varied.

    Runs that are left out are named on the console.
    """
    found: Summaries = {}
    varied = variations(read_jobs(folder), ("seed=", "experiment="))
    for path in sorted(folder.rglob("summary.json")):
        summary = read_json(path)
        if path.parent.is_symlink():
            continue
        if summary["status"] != "completed":
            print(f"left out: {path.parent} {summary['status']}")
            continue
        if not summary["metrics"]:
            print(f"left out: {path.parent} has no scores")
            continue
        label = " ".join([summary["experiment"], *varied.get(path.parent, [])])
        found.setdefault(label, []).append(summary)
    return found


def variations(
    jobs: Mapping[Path, Mapping[str, Any]], but: tuple[str, ...]
) -> dict[Path, list[str]]:
    """The overrides of each job that not all jobs share, without those that begin like `but`."""
    shared = set.intersection(*(set(job["overrides"]) for job in jobs.values())) if jobs else set()
    return {
        folder: [
            text for text in job["overrides"] if text not in shared and not text.startswith(but)
        ]
        for folder, job in jobs.items()
    }


def unfinished(folder: Path) -> list[str]:
    """What to tell of the jobs below a folder that did not complete: which, and the traceback or
    the log's end.
    """
    lines, jobs = [], read_jobs(folder)
    varied = variations(jobs, ("experiment=",))
    for place, job in jobs.items():
        if job["status"] != "completed":
            lines.append(" ".join([f"{job['status']}: {place}", *varied[place]]))
            error, log = place / "error.txt", Path(job["log"] or "")
            if error.exists():
                lines += [f"  {line}" for line in error.read_text().splitlines()]
            elif log.is_file():
                lines += [
                    f"  {line}"
                    for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                ]
                lines.append(f"  (the end of {log})")
    return lines


def write_comparison(summaries: Summaries, out: Path) -> None:
    """The table into `README.md` of a folder, and the picture of the primary metric beside it,
    `scores.png`.
    """
    out.mkdir(parents=True, exist_ok=True)
    fill(out / "README.md", table(summaries))
    primary = next(iter(summaries.values()))[0]["primary"]
    scores = {name: [s["metrics"][primary] for s in found] for name, found in summaries.items()}
    bars(scores, primary, out / "scores.png")


def fill(page: Path, lines: list[str]) -> None:
    """Put the table between the two marks of a page; a page without them, or a new one, gets it at
    its end.
    """
    text = page.read_text() if page.exists() else ""
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text("\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + (after or "\n")]))


def table(summaries: Summaries) -> list[str]:
    """Markdown lines: references first, then each name's mean and spread (standard deviation), the
    best first.
    """
    first = next(iter(summaries.values()))[0]
    names = sorted(first["metrics"], key=lambda name: (name != first["primary"], name))
    lines = ["| samples | runs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for label, scores in rows(first):
        if not label.startswith("student"):
            lines.append(
                f"| {label} | | " + " | ".join(cell(scores, name) for name in names) + " |"
            )
    ordered = sorted(
        summaries.items(), key=lambda item: mean([s["metrics"][first["primary"]] for s in item[1]])
    )
    for name, found in ordered:
        cells = [spread([summary["metrics"][metric] for summary in found]) for metric in names]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation, e.g. "1.23 ± 0.04"."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"
