"""The jobs of a sweep: each leaves word in its own directory of what it was and how it ended.

`job.json` holds its overrides and its status, `error.txt` the traceback of one that failed; one
that is neither completed nor failed was killed. The imports are few, so that a job in Slurm hears
signals before torch is loaded.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmd2.distributed import slurm
from dmd2.io.files import read_json, write_bytes, write_json


def write_job(folder: Path, overrides: Sequence[str], status: str, log: Path | None = None) -> None:
    """Leave word of a job; `log` is where its output goes, None where that is the console."""
    content = {
        "overrides": list(overrides),
        "status": status,
        "log": None if log is None else str(log),
    }
    write_json(folder / "job.json", content)


def run_job(
    folder: Path, overrides: Sequence[str], task: Callable[[], None], log: Path | None = None
) -> bool:
    """Do a job; whether it completed. An exception is told and kept, and the other jobs of the
    sweep go on.
    """
    first = slurm.rank() == 0
    if first:
        (folder / "error.txt").unlink(missing_ok=True)
        write_job(folder, overrides, "running", log)
    try:
        task()
    except Exception:
        traceback.print_exc()
        if not (
            folder / "error.txt"
        ).exists():  # the first process to fail knows why, the others suffer from it
            write_bytes(folder / "error.txt", traceback.format_exc().encode())
        return False
    if first:
        write_job(folder, overrides, "completed", log)
    return True


@dataclass(frozen=True)
class SlurmJob:
    """A job on its way to another machine: a command's module by name, and the config that it works
    on.

    It is begun anew after each requeue, and is then the same job: its config says resume=auto and
    where it was.
    """

    module: str
    config: dict[str, Any]
    folder: Path
    overrides: list[str]

    def __call__(self) -> None:
        """Do the job in the process that Slurm started for it; exits with 1 where it fails."""
        from submitit import JobEnvironment  # noqa: PLC0415

        slurm.listen()
        slurm.name_ranks()
        try:
            log = JobEnvironment().paths.stdout
            if not run_job(self.folder, self.overrides, self.work, log):
                sys.exit(1)
        except slurm.Requeue:
            slurm.requeue()

    def work(self) -> None:
        """What the command does with its config."""
        importlib.import_module(self.module).work(self.config)


def read_jobs(folder: Path) -> dict[Path, dict[str, Any]]:
    """What the jobs below a folder left: `overrides`, `log`, `status` (completed, failed or
    killed), by directory.
    """
    found = {}
    for path in sorted(folder.rglob("job.json")):
        job = read_json(path)
        if job["status"] != "completed":
            job["status"] = "failed" if (path.parent / "error.txt").exists() else "killed"
        found[path.parent] = job
    return found
