"""Compares runs: scores averaged over seeds, as a table and a picture; failed jobs are named."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dmd2.evaluation.pictures import bars
from dmd2.io.files import write_bytes
from dmd2.runs.differences import labels, leaves_of
from dmd2.runs.job import read_jobs
from dmd2.runs.markdown import text
from dmd2.runs.score_table import cell, rows
from dmd2.runs.summary import flaw, read_summary

MARKS = ("<!-- table -->", "<!-- end of table -->")
"""What in a README.md is replaced by a new table lies between these."""
LOG_LINES = 12
"""Lines that are shown of the log of a job that was killed."""

Summaries = dict[str, list[dict[str, Any]]]
"""Summaries of completed runs, in groups that differ by their seeds only."""


def gather(folder: Path) -> Summaries:
    """The summaries of completed runs below a folder, in groups that differ by their seeds only.

    A group is called by its experiment and what it differs in from the others of that. Runs that
    are left out are named on the console.
    """
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, Any]]] = {}
    scored = list(_scored(folder))
    # The metric of most runs: the odd one may be the first.
    primaries = Counter(summary["primary"] for _, summary, _ in scored).most_common(1)
    for path, summary, leaves in scored:
        if summary["primary"] != (usual := primaries[0][0]):
            print(f"left out: {path.parent} is scored by {summary['primary']}, others by {usual}")
            continue
        groups.setdefault((summary["experiment"], frozenset(leaves.items())), []).append(summary)
    found: Summaries = {}
    for experiment in dict.fromkeys(name for name, _ in groups):
        alike = [key for key in groups if key[0] == experiment]
        for key, label in zip(alike, labels([dict(leaves) for _, leaves in alike]), strict=True):
            found[f"{experiment} {label}".strip()] = groups[key]
    return found


def _scored(folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, str]]]:
    """The runs below a folder whose scores can be compared; the others are named."""
    for path in sorted(folder.rglob("summary.json")):
        if path.parent.is_symlink():  # `latest`, which is another directory's second name
            continue
        try:
            summary, leaves = read_summary(path), leaves_of(path.parent)
        except ValueError as error:
            print(f"left out: {error}")
            continue
        if why := flaw(summary):
            print(f"left out: {path.parent} {why}")
            continue
        yield path, summary, leaves


def variations(
    jobs: Mapping[Path, Mapping[str, Any]], but: tuple[str, ...]
) -> dict[Path, list[str]]:
    """The overrides of each job that not all jobs share, without those that begin like `but`."""
    # What all jobs have in common is left out of their names, or the tables would be wide.
    shared = set.intersection(*(set(job["overrides"]) for job in jobs.values())) if jobs else set()
    return {
        folder: [
            word for word in job["overrides"] if word not in shared and not word.startswith(but)
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
    content = page.read_text() if page.exists() else ""
    before, _, rest = content.partition(MARKS[0])
    # What stood between the marks is replaced; without an end mark, all behind the first one.
    after = rest.partition(MARKS[1])[2]
    filled = "\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + (after or "\n")])
    write_bytes(page, filled.encode())


def table(summaries: Summaries) -> list[str]:
    """Markdown lines: references, then mean and standard deviation of each group, the best first.

    References that differ between groups have a row for each, which names its group.
    """
    first = next(iter(summaries.values()))[0]
    names = sorted(first["metrics"], key=lambda name: (name != first["primary"], name))
    # Runs of an older version, or with health=none, have nothing to say of it.
    watched = ["health"] if any(health(found) for found in summaries.values()) else []
    head = " | ".join(map(text, [*names, *watched]))
    lines = [f"| samples | runs | {head} |", "|---" * (len(names) + len(watched) + 2) + "|"]
    for label, cells in _references(summaries, names):
        lines.append(f"| {text(label)} | | " + " | ".join(cells + [""] * len(watched)) + " |")
    # Of every primary metric lower is better.
    ordered = sorted(
        summaries.items(), key=lambda item: mean([s["metrics"][first["primary"]] for s in item[1]])
    )
    for name, found in ordered:
        cells = [
            spread([s["metrics"][metric] for s in found if metric in s["metrics"]])
            for metric in names
        ]
        cells += [text(health(found)) for _ in watched]
        lines.append(f"| {text(name)} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def health(summaries: list[dict[str, Any]]) -> str:
    """What was wrong at the end of some runs, e.g. "2 of 3: gan_won"; empty if nobody watched."""
    watched = [found for summary in summaries if (found := summary.get("health"))]
    ill = [found["verdicts"] for found in watched if found["state"] != "healthy"]
    names = dict.fromkeys(v["name"] for found in ill for v in found if v["until"] is None)
    if ill:
        return f"{len(ill)} of {len(watched)}: {', '.join(names)}"
    return "healthy" if watched else ""


def _references(summaries: Summaries, names: list[str]) -> list[tuple[str, list[str]]]:
    """Rows of references: their labels, and their cells."""
    found: dict[str, dict[tuple[str, ...], str]] = {}
    for group, (first, *_) in summaries.items():
        for label, scores in rows(first):
            # The rows of `rows` whose label begins so are this one run's own scores.
            if not label.startswith("student"):
                cells = tuple(cell(scores, name) for name in names)
                found.setdefault(label, {}).setdefault(cells, group)
    return [
        (label if len(rows_) == 1 else f"{label}, of {group}", list(cells))
        for label, rows_ in found.items()
        for cells, group in rows_.items()
    ]


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation, e.g. "1.23 ± 0.04"; empty where there are none."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"
