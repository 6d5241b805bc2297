"""Runs a verb on one config or as a job of a sweep (`--multirun`); prints the sweep's table."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from dmd2.config.check import Config, resolved
from dmd2.runs.compare import gather, table, unfinished, write_comparison
from dmd2.runs.job import read_jobs, run_job


def run_or_sweep_job(composed: DictConfig, work: Callable[[Config], None]) -> None:
    """Run a verb's `work` on a composed config.

    A job of a sweep that fails is reported, and the other jobs still run.
    """
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        return work(resolved(composed))
    # Hydra has numbered the sweep's jobs; the run's directory is the one with the job's number.
    composed.paths.run = job.runtime.output_dir
    run_job(Path(job.runtime.output_dir), job.overrides.task, lambda: work(resolved(composed)))


class SweepEnd(Callback):
    """Hydra calls this when the last job has ended, whichever launcher ran them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the failures with their tracebacks, then the table; exits with 1 on a failure.

        The table and its picture also stay in the sweep's folder.
        """
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
