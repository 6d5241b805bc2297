"""Compare many runs: a table and a picture of mean and spread over seeds, beside the references.

usage: dmd2 compare runs=DIR [out=DIR]

  runs   A folder that holds run directories, at any depth, e.g. runs/sweeps/TIME.
  out    A folder whose README.md gets the table, between its two table marks, and that gets
         scores.png; null only prints.

The references are scores of real data, of simple baselines and of the teacher.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.runs.compare import gather, table, unfinished, write_comparison


def main(options: DictConfig) -> None:
    """Gather the summaries and print the table."""
    runs = Path(options.runs)
    summaries = gather(runs)
    # Before the error below, so that it is not the only word on a sweep of which all jobs failed.
    print(*unfinished(runs), sep="\n")
    # Without one there are no metrics either, of which the table would have columns.
    if not summaries:
        raise FileNotFoundError(
            f"there is no completed run below {runs}; e.g. runs=runs/sweeps/TIME"
        )
    print("\n".join(table(summaries)))
    if options.out is not None:
        write_comparison(summaries, Path(options.out))
        print(*(Path(options.out) / name for name in ("README.md", "scores.png")))
