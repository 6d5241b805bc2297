"""Compares runs: scores averaged over seeds, as a table and a picture; failed jobs are named."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dmd2.evaluation.pictures import bars
from dmd2.io.files import read_json
from dmd2.runs.job import read_jobs
from dmd2.runs.score_table import cell, rows

MARKS = ("<!-- table -->", "<!-- end of table -->")
"""What in a README.md is replaced by a new table lies between these."""
LOG_LINES = 12
"""Lines that are shown of the log of a job that was killed."""

Summaries = dict[str, list[dict[str, Any]]]
"""Summaries of completed runs, in groups that differ by their seeds only."""


def gather(folder: Path) -> Summaries:
    """The summaries of completed runs below a folder, by experiment and what a sweep varied.

    Runs that are left out are named on the console.
    """
    found: Summaries = {}
    varied = variations(read_jobs(folder), ("seed=", "experiment="))
    for path in sorted(folder.rglob("summary.json")):
        summary = read_json(path)
        if path.parent.is_symlink():  # `latest`, which is another directory's second name
            continue
        if summary["status"] != "completed":
            print(f"left out: {path.parent} {summary['status']}")
            continue
        if not summary["metrics"]:
            print(f"left out: {path.parent} has no scores")
            continue
        # Runs of one label are averaged; of runs outside a sweep nothing but the name is known.
        label = " ".join([summary["experiment"], *varied.get(path.parent, [])])
        found.setdefault(label, []).append(summary)
    return found


def variations(
    jobs: Mapping[Path, Mapping[str, Any]], but: tuple[str, ...]
) -> dict[Path, list[str]]:
    """The overrides of each job that not all jobs share, without those that begin like `but`."""
    # What all jobs have in common is left out of their names, or the tables would be wide.
    shared = set.intersection(*(set(job["overrides"]) for job in jobs.values())) if jobs else set()
    return {
        folder: [
            text for text in job["overrides"] if text not in shared and not text.startswith(but)
        ]
        for folder, job in jobs.items()
    }


def unfinished(folder: Path) -> list[str]:
    """Lines on the jobs below a folder that did not complete.

    They name the job, with its traceback where it failed, or the end of its log where it was
    killed.
    """
    lines, jobs = [], read_jobs(folder)
    varied = variations(jobs, ("experiment=",))
    for place, job in jobs.items():
        if job["status"] != "completed":
            lines.append(" ".join([f"{job['status']}: {place}", *varied[place]]))
            error, log = place / "error.txt", Path(job["log"] or "")
            # A job that was killed by Slurm or for memory had no time to write a traceback.
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
    """Write the table into a folder's `README.md`, and a plot of the primary metric: `scores.png`.

    The primary metric is the first run's, and every run must have it.
    """
    out.mkdir(parents=True, exist_ok=True)
    fill(out / "README.md", table(summaries))
    primary = next(iter(summaries.values()))[0]["primary"]
    scores = {name: [s["metrics"][primary] for s in found] for name, found in summaries.items()}
    bars(scores, primary, out / "scores.png")


def fill(page: Path, lines: list[str]) -> None:
    """Put the table between the two marks of a page.

    A page without them, or a new one, gets the marks and the table at its end.
    """
    text = page.read_text() if page.exists() else ""
    before, _, rest = text.partition(MARKS[0])
    # What stood between the marks is replaced; without an end mark, all behind the first one.
    after = rest.partition(MARKS[1])[2]
    page.write_text("\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + (after or "\n")]))


def table(summaries: Summaries) -> list[str]:
    """Markdown lines: references, then mean and standard deviation of each group, the best first.

    References are those of the first run: a sweep shares teacher, data and metric.
    """
    first = next(iter(summaries.values()))[0]
    names = sorted(first["metrics"], key=lambda name: (name != first["primary"], name))
    lines = ["| samples | runs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for label, scores in rows(first):
        # The rows of `rows` whose label begins so are this one run's own scores.
        if not label.startswith("student"):
            lines.append(
                f"| {label} | | " + " | ".join(cell(scores, name) for name in names) + " |"
            )
    # Of every primary metric lower is better.
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
