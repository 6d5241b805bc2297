"""A process's part in a Slurm job: told ahead of its end, it saves and has the job queued again.
Linux only.

Signals that come before a process can act on them are held for it: `python -m
dmd2.distributed.slurm COMMAND` starts a command in that way.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

AHEAD = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""What `--signal` has Slurm send ahead of a time limit or a preemption: USR2 by `launcher=slurm`,
USR1 by scripts.
"""

HELD: Iterable[signal.Signals] = AHEAD | {signal.SIGTERM}
MAX_RESTARTS = 100
"""A run that never gets past its beginning must not be queued for ever."""


class Requeue(KeyboardInterrupt):
    """A run has ended to be queued again."""


def active() -> bool:
    """Whether this process is of a job that is queued again by itself; who submits the job says
    so.
    """
    return "DMD2_REQUEUE" in os.environ and "SLURM_JOB_ID" in os.environ


def listen() -> None:
    """Act on signals from now on, also on those that came before; a run that trains has its own way
    meanwhile.

    SIGTERM is only heard by a run that trains: Slurm sends it with time to spare, and queues a job
    that it preempts
    again by itself, unless the job ends before it is killed.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        requeue()

    for number in AHEAD:
        signal.signal(number, handle)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def name_ranks() -> None:
    """Give the processes that srun started for one run their names as its ranks
    (`dmd2.distributed.process_group`).
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    nodes = subprocess.run(
        ["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True
    ).stdout
    job = int(os.environ["SLURM_JOB_ID"])
    os.environ.setdefault("MASTER_ADDR", nodes.split()[0])
    os.environ.setdefault("MASTER_PORT", str(20_000 + job % 10_000))
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "NODE_RANK": os.environ["SLURM_NODEID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
    }


def requeue() -> NoReturn:
    """Have this job queued again, by its first process, and wait to be ended; exits with 1 where it
    cannot be.
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
    """What Slurm has against queueing this job again; empty where it does it."""
    asked = subprocess.run(
        ["scontrol", "requeue", job_id()], capture_output=True, text=True, check=False
    )
    return asked.stderr.strip() if asked.returncode else ""


def job_id() -> str:
    """This job as Slurm's commands take it: NUMBER, or ARRAY_INDEX."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def rank() -> int:
    """This process's number among those of its run, by torchrun's word or Slurm's."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0"))


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    os.execvp(sys.argv[1], sys.argv[1:])
