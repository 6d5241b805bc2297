"""A job of a sweep: records its overrides and its status, here or as a Slurm job.

`job.json` in the job's directory has the overrides and the status, `error.txt` why a job failed: a
user's mistake in one line, else the traceback. A job that is neither completed nor failed was
killed. The imports are few, so that a Slurm job handles signals before torch is loaded.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dmd2.distributed import slurm
from dmd2.io.files import read_hashed_json, write_bytes, write_hashed_json
from dmd2.io.shown import Explain, printable


def write_job(folder: Path, overrides: Sequence[str], status: str, log: Path | None = None) -> None:
    """Write a job's record; `log` is where its output goes, None where that is the console."""
    content = {
        "overrides": list(overrides),
        "status": status,
        "log": None if log is None else str(log),
    }
    write_hashed_json(folder / "job.json", content)


def run_job(
    folder: Path,
    overrides: Sequence[str],
    task: Callable[[], None],
    explain: Explain,
    log: Path | None = None,
) -> bool:
    """Run a job's `task`; returns whether it completed.

    An exception is printed and written to `error.txt`, and not raised: other jobs of the sweep are
    still to come. Interrupts (KeyboardInterrupt, and with it `slurm.Requeue`) pass through.
    """
    # Before there is a process group: rank 0 by the environment.
    first = slurm.rank() == 0
    if first:
        # Of an earlier attempt: a requeued job comes here again.
        (folder / "error.txt").unlink(missing_ok=True)
        write_job(folder, overrides, "running", log)
    try:
        task()
    except Exception as failure:
        line = explain(failure)
        text = traceback.format_exc().rstrip() if line is None else f"dmd2: {printable(line)}"
        print(text, file=sys.stderr)
        # The rank that fails first knows why; the others only lose their connection to it.
        error = folder / "error.txt"
        if not error.exists():
            write_bytes(error, f"{text}\n".encode())
        return False
    if first:
        write_job(folder, overrides, "completed", log)
    return True


@dataclass(frozen=True)
class SlurmJob:
    """A picklable job for submitit: it calls `work(config)` of the verb's module.

    After a requeue the same job runs again: its config has resume=auto and the run's directory.
    """

    # Nothing of torch: unpickling must not import it before signals are handled.

    module: str
    config: dict[str, Any]
    folder: Path
    overrides: list[str]
    explain: Explain

    def __call__(self) -> None:
        """Run the job in the process that Slurm started for it; exits with 1 where it fails."""
        from submitit import JobEnvironment  # noqa: PLC0415

        # At once: signals are blocked since the process started, and pending ones arrive here.
        slurm.listen()
        slurm.name_ranks()
        try:
            log = JobEnvironment().paths.stdout
            if not run_job(self.folder, self.overrides, self.work, self.explain, log):
                sys.exit(1)
        except slurm.Requeue:  # the run was interrupted and has written its checkpoint
            slurm.requeue()

    def work(self) -> None:
        """Call the verb's function on the config; this import loads torch."""
        importlib.import_module(self.module).work(self.config)


def typed_words(hydra: Any) -> list[str]:
    """The overrides of a run as they were typed, from Hydra's own config of it."""
    # To a list they would be references, and not the text of one.
    words: Any = OmegaConf.to_container(hydra.overrides.task)
    return [*map(str, words)]


def composition(hydra: Any) -> dict[str, Any]:
    """The `composed` of a run's config.yaml, from Hydra's own config of the run.

    That is its choice from each group and the overrides, so that its config can be told in short.
    """
    choices = {group: name for group, name in hydra.runtime.choices.items() if "/" not in group}
    return {"choices": choices, "overrides": typed_words(hydra)}


def read_jobs(folder: Path) -> dict[Path, dict[str, Any]]:
    """The records of the jobs below a folder, by directory: `overrides`, `log` and `status`.

    The status is "completed", "failed", "killed", or "damaged" where the record cannot be read.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted(folder.rglob("job.json")):
        try:
            job = read_hashed_json(path)
        except ValueError as error:
            print(f"dmd2: {error}", file=sys.stderr)
            found[path.parent] = {"overrides": [], "log": None, "status": "damaged"}
            continue
        # A job that was killed could not write so: its file still has "running".
        if job["status"] != "completed":
            job["status"] = "failed" if (path.parent / "error.txt").exists() else "killed"
        found[path.parent] = job
    return found
