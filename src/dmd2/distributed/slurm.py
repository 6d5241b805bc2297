"""Slurm: handle the signals before a time limit or a preemption, and requeue the job. Linux only.

A signal that comes while Python is loading would kill the process. So `python -m
dmd2.distributed.slurm COMMAND` blocks these signals, and starts a command that unblocks them when
it has handlers. This module must not import torch, which takes seconds to load.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

# What sbatch's `--signal` sends ahead of a time limit or a preemption: USR2 with
# `launcher=slurm`, which is submitit's choice, USR1 with our scripts.
AHEAD = frozenset({signal.SIGUSR1, signal.SIGUSR2})
HELD: Iterable[signal.Signals] = AHEAD | {signal.SIGTERM}  # blocked until there are handlers
MAX_RESTARTS = 100  # a run that never gets past its beginning must not be requeued for ever


class Requeue(KeyboardInterrupt):
    """A run was interrupted by Slurm and has saved; its job is to be requeued."""


def active() -> bool:
    """Whether this process belongs to a job that requeues itself (DMD2_REQUEUE, set in its script).

    False outside of a Slurm job.
    """
    return "DMD2_REQUEUE" in os.environ and "SLURM_JOB_ID" in os.environ


def listen() -> None:
    """Handle signals from now on, with those that were blocked before; training has its own way.

    A signal ahead of a limit requeues the job at once, since there is nothing to save yet. SIGTERM
    is ignored until training handles it: Slurm sends it some time before it kills a job that it
    preempts, and requeues that job by itself, unless the job ends before.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        requeue()

    for number in AHEAD:
        signal.signal(number, handle)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Last: a blocked signal that is pending arrives here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def name_ranks() -> None:
    """Translate srun's variables into torchrun's, which `distributed.environment` reads.

    Does nothing in a job of a single process.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    # The list of nodes is compressed ("node[1-4,7]"); scontrol expands it.
    nodes = subprocess.run(
        ["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True
    ).stdout
    job = int(os.environ["SLURM_JOB_ID"])
    os.environ.setdefault("MASTER_ADDR", nodes.split()[0])
    # All ranks must derive the same port without talking; two jobs on one node seldom share it.
    os.environ.setdefault("MASTER_PORT", str(20_000 + job % 10_000))
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "NODE_RANK": os.environ["SLURM_NODEID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
    }


def requeue() -> NoReturn:
    """Requeue this job, on rank 0, and wait until Slurm ends this process.

    Exits with 1 where Slurm refuses, or the job was requeued `MAX_RESTARTS` times.
    """
    if rank() == 0:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        failure = (
            f"it was {restarts} times already" if restarts >= MAX_RESTARTS else ask_for_requeue()
        )
        if failure:
            print(
                f"dmd2: job {job_id()} is not queued again: {failure}", file=sys.stderr, flush=True
            )
            sys.exit(1)
        print(f"job {job_id()} is queued again", flush=True)
    # A process that exits by itself could end the job before Slurm has ended the others.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()


def ask_for_requeue() -> str:
    """Call `scontrol requeue` on this job; returns its error message, empty where it succeeds."""
    asked = subprocess.run(
        ["scontrol", "requeue", job_id()], capture_output=True, text=True, check=False
    )
    return asked.stderr.strip() if asked.returncode else ""


def job_id() -> str:
    """This job's id as Slurm's commands take it: NUMBER, or ARRAY_INDEX for a task of an array."""
    # In an array each task has a SLURM_JOB_ID of its own, which is not what squeue prints.
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def rank() -> int:
    """This process's rank from the environment, before there is a process group."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0"))


if __name__ == "__main__":
    # `exec` keeps the mask of blocked signals, so the command starts with them held.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    os.execvp(sys.argv[1], sys.argv[1:])
