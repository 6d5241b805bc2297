"""Compares runs: scores averaged over seeds, as table, picture and page; failed jobs are named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmd2.evaluation.pictures import dots
from dmd2.io.files import write_bytes
from dmd2.io.small_files import read_small_text
from dmd2.runs.group import Groups
from dmd2.runs.groups import costs_of, metrics_of, references
from dmd2.runs.markdown import text
from dmd2.runs.page.comparison_page import comparison_page
from dmd2.runs.score_table import cell, spread

MARKS = ("<!-- table -->", "<!-- end of table -->")
"""What in a README.md is replaced by a new table lies between these."""
LOG_LINES = 12
"""Lines that are shown of the log of a job that was killed."""


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


def unfinished(jobs: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """Lines on the jobs, of `read_jobs`, that did not complete.

    They name the job, with its error where it failed, or the end of its log where it was
    killed.
    """
    lines = []
    varied = variations(jobs, ("experiment=",))
    for place, job in jobs.items():
        if job["status"] != "completed":
            lines.append(" ".join([f"{job['status']}: {place}", *varied[place]]))
            error, log = place / "error.txt", Path(job["log"] or "")
            # A job that was killed by Slurm or for memory had no time to say why.
            if error.is_file():
                lines += [f"  {line}" for line in read_small_text(error).splitlines()]
            elif log.is_file():
                lines += [
                    f"  {line}"
                    for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[
                        -LOG_LINES:
                    ]
                ]
                lines.append(f"  (the end of {log})")
    return lines


def write_comparison(groups: Groups, title: str, failures: Sequence[str], out: Path) -> list[Path]:
    """Write what compares runs into the folder `out`; returns the files.

    The table goes into `README.md`, a new one of which has a title and what it shows before it;
    `scores.png` has the primary score of every run that was scored, and `comparison.html` is the
    page.
    """
    out.mkdir(parents=True, exist_ok=True)
    table_file, picture, page = (out / n for n in ("README.md", "scores.png", "comparison.html"))
    primary = groups[0].primary
    lines = [f"# {text(title)}", "", f"[Pictures and curves]({page.name}) of every run."]
    if values := {group.name: group.values(primary) for group in groups if group.is_scored}:
        dots(values, primary, picture)
        lines[-1] += f" After references the lowest {text(primary)} is first; ± is over seeds."
        lines += [
            "",
            f"![{text(primary)}]({picture.name})",
            "",
            "A dot is a run, a bar their mean.",
        ]
    fill(table_file, table(groups), [*lines, "", ""])
    write_bytes(page, comparison_page(groups, title, failures).encode())
    return [table_file, *([picture] if values else []), page]


def fill(page: Path, lines: list[str], opening: list[str]) -> None:
    """Put the table between the two marks of a page.

    A page without them gets the marks and the table at its end, and a new one an opening, too.
    """
    content = read_small_text(page) if page.exists() else "\n".join(opening)
    before, _, rest = content.partition(MARKS[0])
    # What stood between the marks is replaced; without an end mark, all behind the first one.
    after = rest.partition(MARKS[1])[2]
    filled = "\n".join([before + MARKS[0], "", *lines, "", MARKS[1] + (after or "\n")])
    write_bytes(page, filled.encode())


def table(groups: Groups) -> list[str]:
    """Markdown lines: references, then mean and standard deviation of each group, the best first.

    References that differ between groups have a row for each, which names its group.
    """
    names = metrics_of(groups)
    # Runs of an older version, or with health=none, have nothing to say of it.
    watched = ["health"] if any(group.health for group in groups) else []
    costs = costs_of(groups)
    beside = [*costs, *watched]
    head = " | ".join(map(text, [*names, *beside]))
    lines = [f"| samples | runs | {head} |", "|---" * (len(names) + len(beside) + 2) + "|"]
    for label, scores in references(groups, names):
        cells = [cell(scores, name) for name in names] + [""] * len(beside)
        lines.append(f"| {text(label)} | | " + " | ".join(cells) + " |")
    for group in groups:
        cells = [spread(group.values(name)) for name in names]
        cells += [group.cost(name) for name in costs] + [text(group.health) for _ in watched]
        lines.append(f"| {text(group.name)} | {len(group.folders)} | " + " | ".join(cells) + " |")
    return lines
