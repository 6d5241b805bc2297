"""The end of a sweep (`--multirun`): failures, and the table of its runs."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Hydra calls this when the last job has ended, whichever launcher ran them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the failures with their tracebacks, then the table; exits with 1 on a failure.

        The table and its picture also stay in the sweep's folder.
        """
        # Hydra loads this module for every command, and pictures load torch.
        from dmd2.runs.compare import gather, table, unfinished, write_comparison  # noqa: PLC0415
        from dmd2.runs.job import read_jobs  # noqa: PLC0415

        folder = Path(config.hydra.sweep.dir)
        # From files, since jobs may have run in other processes, on other machines.
        jobs, summaries = read_jobs(folder), gather(folder)
        failed = [str(place) for place, job in jobs.items() if job["status"] != "completed"]
        # Failures first: the table, which is short, then stands at the end of the output.
        print(*unfinished(folder), sep="\n")
        if summaries:
            write_comparison(summaries, folder)
            print("\n".join(table(summaries)))
        print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs completed: {folder}")
        if failed:
            print(
                f"dmd2: {len(failed)} of {len(jobs)} jobs did not complete: {', '.join(failed)}",
                file=sys.stderr,
            )
            sys.exit(1)  # so that scripts notice; Hydra itself would return 0
