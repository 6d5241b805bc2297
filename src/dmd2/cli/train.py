"""Distil a teacher into a few-step generator, and score it; trains the teacher if there is none.

usage: dmd2 train [experiment=NAME] [KEY=VALUE ...]
       dmd2 train --cfg job [experiment=NAME]
           prints the whole configuration and stops
       dmd2 train --check [experiment=NAME] [KEY=VALUE ...]
           says what would be trained, or all that is missing (files, packages, devices, room on
           the disk and in memory), and writes nothing
       dmd2 train --multirun seed=0,1,2 critic_updates=1,5
           one run for each combination, one after the other
       dmd2 train --multirun launcher=slurm seed=0,1,2
           the same as Slurm jobs (docs/slurm.md)

Keys are those of conf/, e.g. max_iterations=500, optimizer.generator.lr=1e-4, loss=no_gan,
logger=wandb. The run's directory is runs/EXPERIMENT/TIME, and runs/EXPERIMENT/latest points to it.
A run that was interrupted resumes at its last checkpoint: the same command with paths.run=DIR
resume=auto (or resume=DIR/checkpoints/N.ckpt).
"""

from collections.abc import Mapping
from functools import partial

from dmd2.cli.processes import in_all_processes
from dmd2.config.check import Config
from dmd2.distributed.environment import ranks
from dmd2.planning.run_plan import planned_peaks
from dmd2.runs.presence import check_there
from dmd2.runs.run import Run


def work(config: Config) -> None:
    """Run it in as many processes as its trainer takes."""
    check_there(config)
    # Before there is a process group: the plan is one device's, and rank 0 says it.
    planned = planned_peaks(config) if ranks()[0] == 0 else None
    # Launched processes import `train` by its name, so it is a function of this module.
    in_all_processes(config, partial(train, planned))


def train(planned: Mapping[str, int] | None, config: Config) -> None:
    """Train, in this process or as one of the ranks."""
    Run(config, planned).start()
