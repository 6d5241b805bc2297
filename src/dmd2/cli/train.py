"""Distil a teacher (trained first, if there is none) into a few-step generator; score it; show it.

usage: dmd2 train [experiment=NAME] [KEY=VALUE ...]
       dmd2 train --cfg job [experiment=NAME]                prints the whole configuration and
       stops
       dmd2 train --multirun seed=0,1,2 critic_updates=1,5   one run for each combination, one after
       the other
       dmd2 train --multirun launcher=slurm seed=0,1,2 ...   the same as Slurm jobs (docs/slurm.md)

Keys are those of conf/, e.g. max_iterations=500, optimizer.generator.lr=1e-4, loss=no_gan,
logger=wandb. The run's directory is runs/EXPERIMENT/TIME, and runs/EXPERIMENT/latest points to it.
A run that was ended goes on where its last checkpoint is: the same command with paths.run=DIR
resume=auto (or resume=DIR/checkpoints/N.ckpt).
"""

from dmd2.cli.processes import in_all_processes
from dmd2.cli.verbs import verb_of_experiments
from dmd2.config.check import Config
from dmd2.runs.run import Run


def work(config: Config) -> None:
    """The run, in as many processes as its trainer takes."""
    in_all_processes(config, train)


def train(config: Config) -> None:
    """Train, alone or as one of the ranks."""
    Run(config).start()


main = verb_of_experiments(work)
