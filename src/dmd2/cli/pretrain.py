"""Train the teacher of an experiment, unless it is in the cache already.

usage: dmd2 pretrain experiment=NAME [KEY=VALUE ...]
"""

import hydra
from omegaconf import DictConfig

from dmd2.cli.errors import user_errors
from dmd2.cli.sweep import run_or_sweep_job
from dmd2.config.check import Config, config_folder
from dmd2.config.devices import processes
from dmd2.distributed.slurm import rank
from dmd2.runs.build import build_data, build_teacher, load_or_train


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
@user_errors
def main(composed: DictConfig) -> None:
    """Make sure that the teacher exists."""
    run_or_sweep_job(composed, work)


def work(config: Config) -> None:
    """Train it, or find it; one process does."""
    processes(config)
    if rank() > 0:
        return
    teacher = build_teacher(config, build_data(config["data"]))
    load_or_train(teacher, config)
    print(f"the teacher is {teacher.path}")
