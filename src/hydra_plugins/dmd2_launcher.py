"""Hydra launcher plugin (`launcher=slurm`): submits each run of a sweep as a Slurm job by submitit.

Hydra finds launchers in the package `hydra_plugins` alone, so it is not in `dmd2`.
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

from dmd2.cli.errors import one_line
from dmd2.config.check import resolved
from dmd2.config.slurm_site import site_settings
from dmd2.runs.job import SlurmJob, composition, write_job

POLL_SECONDS = 5
SETUP = (
    "export DMD2_REQUEUE=1",
    # Since Slurm 22.05 srun does not inherit --cpus-per-task from sbatch.
    "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
)
Shape = tuple[int, int, bool]  # nodes, processes a node, whether each process has a GPU


class Slurm(Launcher):
    """Submits jobs as arrays, one for each shape of `trainer`, and waits until all have ended.

    timeout_min        Time limit of a job in minutes; one that takes longer is requeued and
                       resumes.
    signal_delay_s     Seconds before the limit at which a job is sent USR2.
    cpus_per_task      CPU cores of each process.
    array_parallelism  Jobs at the same time.
    site               YAML file with the settings of this cluster (`dmd2.config.slurm_site`).
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
        """Keep what composes a job's config; Hydra calls this before `launch`."""
        self.loader, self.config = hydra_context.config_loader, config
        # By name, since a job imports it on another machine, with signals held.
        self.module = task_function.__module__

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the jobs and wait for their ends.

        Every job is returned as completed: `SweepEnd` reads how each ended from its directory.
        """
        arrays: dict[Shape, list[SlurmJob]] = {}
        for i, overrides in enumerate(job_overrides, initial_job_idx):
            # Jobs of an array share their resources, hence an array for each shape.
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
        """A job with its config, complete and checked before it waits in the queue.

        Raises ValueError as `dmd2.config.check.resolved` does.
        """
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num = num
            # The run's directory is fixed here: a job that is requeued must find its checkpoints.
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
            config.paths.run, config.resume = str(folder), "auto"
            composed = composition(config.hydra)
            del config["hydra"]  # no key of ours, and it has values that only Hydra sets
        told = resolved(config) | {"composed": composed}
        return SlurmJob(self.module, told, folder, overrides, one_line)

    def submit(self, size: Shape, jobs: list[SlurmJob]) -> list[str]:
        """Submit jobs of one shape as an array; returns their ids."""
        from submitit import SlurmExecutor  # noqa: PLC0415

        num_nodes, num_tasks, gpu = size
        executor = SlurmExecutor(Path(self.config.hydra.sweep.dir).absolute() / ".submitit" / "%j")
        executor.update_parameters(
            **{key: value for key, value in self.options.items() if value is not None},
            job_name=jobs[0].config["name"],
            nodes=num_nodes,
            ntasks_per_node=num_tasks,
            stderr_to_stdout=True,
            # Without the first option the other ranks would wait for one that failed; the rest
            # holds signals until the job has handlers.
            srun_args=["--kill-on-bad-exit=1", sys.executable, "-m", "dmd2.distributed.slurm"],
            **({"gpus_per_node": num_tasks} if gpu else {}),
        )
        # Before they are submitted: one that starts at once writes "running" over it.
        for job in jobs:
            write_job(job.folder, job.overrides, "queued")
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return [job.job_id for job in submitted]


def shape(trainer: Mapping[str, Any]) -> Shape:
    """The nodes, processes a node and GPUs that a `trainer` section asks for.

    Raises ValueError where `devices` is no positive number.
    """
    num_nodes, devices = trainer.get("num_nodes", 1), trainer["devices"]
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(
            f"launcher=slurm asks for as many processes as trainer.devices says, got {devices}; "
            "e.g. 8"
        )
    return num_nodes, devices, trainer["accelerator"] == "gpu"


def wait_for(ids: set[str]) -> None:
    """Return when none of these jobs is in the queue, whether pending, running or requeued."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    while True:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        # An error is a controller that does not answer for a while, and says nothing of the jobs.
        if asked.returncode == 0 and not ids & set(asked.stdout.split()):
            return
        time.sleep(POLL_SECONDS)
