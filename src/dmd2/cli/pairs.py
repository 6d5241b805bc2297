"""Make the noise-image pairs of an experiment's teacher (DMD's data set); goes on where it stopped.

usage: dmd2 pairs experiment=digits_dmd [pairs.num_pairs=10000] [KEY=VALUE ...]

All devices of the experiment's trainer share the work, as in `dmd2 train`; torchrun joins machines.
"""

import hydra
from omegaconf import DictConfig

from dmd2.cli.errors import user_errors
from dmd2.cli.processes import in_all_processes
from dmd2.cli.sweep import run_or_sweep_job
from dmd2.config.check import Config, config_folder
from dmd2.config.devices import processes
from dmd2.distributed.process_group import rank_zero_first
from dmd2.runs.build import build_data, build_teacher, load_or_train, shrink
from dmd2.runs.cached import make_pairs


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
@user_errors
def main(composed: DictConfig) -> None:
    """Make sure that the pairs exist."""
    run_or_sweep_job(composed, work)


def work(config: Config) -> None:
    """Make them in as many processes as the trainer takes; a Slurm job's processes come here,
    too.
    """
    in_all_processes(config, make)


def make(config: Config) -> None:
    """Make those that are not there yet, alone or as one of the ranks."""
    processes(config)
    if config["pairs"] is None:
        raise ValueError(
            f"the experiment {config['name']} uses no pairs; choose one that does: "
            "experiment=digits_dmd"
        )
    with rank_zero_first():  # who trains a teacher, if there is none
        data = build_data(config["data"])
        teacher = build_teacher(config, data)
        load_or_train(teacher, config)
    shrink(teacher, config)
    print(f"pairs are in {make_pairs(config, teacher, data)}")
