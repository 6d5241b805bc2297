"""The end of a sweep (`--multirun`): failures, and the table of its runs."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Hydra calls this when the last job has ended, whichever launcher ran them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the failures with their errors, then the table; exits with 1 on a failure.

        The table, its picture and the page also stay in the sweep's folder.
        """
        # Hydra loads this module for every command, and pictures load torch.
        from dmd2.runs.compare import table, unfinished, write_comparison  # noqa: PLC0415
        from dmd2.runs.groups import gather  # noqa: PLC0415
        from dmd2.runs.job import read_jobs  # noqa: PLC0415
        from dmd2.runs.markdown import aligned  # noqa: PLC0415

        folder = Path(config.hydra.sweep.dir)
        # From files, since jobs may have run in other processes, on other machines.
        jobs, groups = read_jobs(folder), gather(folder)
        failed = [str(place) for place, job in jobs.items() if job["status"] != "completed"]
        # Failures first: the table, which is short, then stands at the end of the output.
        failures = unfinished(jobs)
        for line in failures:
            print(line)
        if groups:
            write_comparison(groups, folder.name, failures, folder)
            print("\n".join(aligned(table(groups))))
        print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs completed: {folder}")
        if failed:
            print(
                f"dmd2: {len(failed)} of {len(jobs)} jobs did not complete: {', '.join(failed)}",
                file=sys.stderr,
            )
            sys.exit(1)  # so that scripts notice; Hydra itself would return 0
