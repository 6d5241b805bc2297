"""Compare many runs: a table of mean and spread over seeds beside the references, and a page.

usage: dmd2 compare runs=DIR [out=DIR]

  runs   A folder that holds run directories, at any depth, e.g. runs/sweeps/TIME.
  out    A folder whose README.md gets the table, between its two table marks, and that gets
         scores.png and the page comparison.html; null only prints.

Runs that differ in more than their seeds are never averaged: they are rows apart, and so are those
that were not scored (metric=none, or ended before the first score). Of runs that are the same, seed
included, the newest counts, and the others are named.

The references are scores of real data, of simple baselines and of the teacher.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.runs.compare import table, unfinished, write_comparison
from dmd2.runs.groups import gather
from dmd2.runs.job import read_jobs
from dmd2.runs.markdown import aligned


def main(options: DictConfig) -> None:
    """Gather the summaries and print the table."""
    runs = Path(options.runs)
    if not runs.is_dir():
        raise FileNotFoundError(f"there is no directory {runs}; e.g. runs=runs/sweeps/TIME")
    groups, failures = gather(runs), unfinished(read_jobs(runs))
    # Before the error below, so that it is not the only word on a sweep of which all jobs failed.
    for line in failures:
        print(line)
    # Without one there are no metrics either, of which the table would have columns.
    if not groups:
        raise FileNotFoundError(
            f"there is no completed run below {runs}, nor one that trained; "
            "e.g. runs=runs/sweeps/TIME"
        )
    print("\n".join(aligned(table(groups))))
    if options.out is not None:
        print(*write_comparison(groups, runs.name, failures, Path(options.out)))
