"""`launcher=slurm`: each run of a sweep is a Slurm job. Here, since Hydra takes launchers from this
package alone.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dmd2.config.check import resolved
from dmd2.config.slurm_site import site_settings
from dmd2.runs.job import SlurmJob, write_job

POLL_SECONDS = 5
SETUP = (
    "export DMD2_REQUEUE=1",
    "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
)  # srun does not inherit it
Shape = tuple[int, int, bool]
"""Nodes, processes a node, and whether each has a GPU."""


class Slurm(Launcher):
    """Submits the jobs as arrays, one for each shape of `trainer`, and waits for their ends.

    timeout_min        Minutes that a job may take; what takes longer is queued again, and goes on.
    signal_delay_s     Seconds before that at which a job is told.
    cpus_per_task      CPU cores of each process.
    array_parallelism  Jobs at the same time.
    site               YAML file with what this cluster wants of every job
                       (`dmd2.config.slurm_site`).
    mem_gb             Memory of each node; null is the cluster's default.
    partition, account, qos, constraint    Of this sweep; null is as in the site's file.
    sbatch             Any other option of sbatch, e.g. {nodelist: node7}.
    """

    def __init__(
        self,
        timeout_min: int,
        signal_delay_s: int,
        cpus_per_task: int,
        array_parallelism: int,
        site: str,
        mem_gb: float | None,
        partition: str | None,
        account: str | None,
        qos: str | None,
        constraint: str | None,
        sbatch: Mapping[str, Any],
    ) -> None:
        place = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
        found = site_settings(Path(site).expanduser(), place)
        self.options = {key: found[key] for key in place} | {
            "setup": [*found["setup"], *SETUP],
            "time": timeout_min,
            "signal_delay_s": signal_delay_s,
            "cpus_per_task": cpus_per_task,
            "array_parallelism": array_parallelism,
            "mem": None if mem_gb is None else f"{mem_gb:g}G",
            "additional_parameters": {"requeue": True, **found["sbatch"], **sbatch},
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows of the sweep."""
        self.loader, self.config = hydra_context.config_loader, config
        self.module = task_function.__module__

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit, wait, and leave it to the end of the sweep to tell how the jobs ended."""
        arrays: dict[Shape, list[SlurmJob]] = {}
        for i, overrides in enumerate(job_overrides, initial_job_idx):
            job = self.job(list(overrides), i)
            arrays.setdefault(shape(job.config["trainer"]), []).append(job)
        ids = [name for size, jobs in arrays.items() for name in self.submit(size, jobs)]
        folder = self.config.hydra.sweep.dir
        print(
            f"{len(ids)} jobs are in the queue: {' '.join(ids)}; their output: {folder}/.submitit",
            flush=True,
        )
        try:
            wait_for(set(ids))
        except KeyboardInterrupt:
            print(
                f"the jobs go on; the table: dmd2 compare runs={folder}; to stop them: scancel "
                f"{' '.join(ids)}"
            )
            raise
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            for overrides in job_overrides
        ]

    def job(self, overrides: list[str], num: int) -> SlurmJob:
        """A job with its config, complete and checked before it waits in a queue."""
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num = num
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
            config.paths.run, config.resume = str(folder), "auto"
            del config["hydra"]
        return SlurmJob(self.module, resolved(config), folder, overrides)

    def submit(self, size: Shape, jobs: list[SlurmJob]) -> list[str]:
        """Submit jobs of one shape; their ids."""
        from submitit import SlurmExecutor  # noqa: PLC0415

        num_nodes, num_tasks, gpu = size
        executor = SlurmExecutor(Path(self.config.hydra.sweep.dir).absolute() / ".submitit" / "%j")
        executor.update_parameters(
            **{key: value for key, value in self.options.items() if value is not None},
            job_name=jobs[0].config["name"],
            nodes=num_nodes,
            ntasks_per_node=num_tasks,
            stderr_to_stdout=True,
            srun_args=[
                "--kill-on-bad-exit=1",
                sys.executable,
                "-m",
                "dmd2.distributed.slurm",
            ],  # signals are held from there on
            **({"gpus_per_node": num_tasks} if gpu else {}),
        )
        for job in jobs:
            write_job(job.folder, job.overrides, "queued")
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return [job.job_id for job in submitted]


def shape(trainer: Mapping[str, Any]) -> Shape:
    """What a trainer's section asks of Slurm."""
    num_nodes, devices = trainer.get("num_nodes", 1), trainer["devices"]
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(
            f"launcher=slurm asks for as many processes as trainer.devices says, got {devices}; "
            "e.g. 8"
        )
    return num_nodes, devices, trainer["accelerator"] == "gpu"


def wait_for(ids: set[str]) -> None:
    """Return when none of these jobs is in the queue, waiting, running or queued again."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    while True:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and not ids & set(
            asked.stdout.split()
        ):  # else the controller is away for a while
            return
        time.sleep(POLL_SECONDS)
