"""Make the noise-image pairs of an experiment's teacher (DMD's data set); goes on where it stopped.

usage: dmd2 pairs experiment=digits_dmd [pairs.num_pairs=10000] [KEY=VALUE ...]

All devices of the experiment's trainer share the work, as in `dmd2 train`; torchrun joins machines.
"""

from dmd2.cli.processes import in_all_processes
from dmd2.cli.verbs import verb_of_experiments
from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.distributed.process_group import rank_zero_first
from dmd2.runs.build import build_data
from dmd2.runs.cached import make_pairs
from dmd2.runs.teacher import build_teacher, teacher_file


def work(config: Config) -> None:
    """Make the pairs in as many processes as the trainer takes."""
    in_all_processes(config, make)


def make(config: Config) -> None:
    """Make those that are not there yet, alone or as one of the ranks."""
    processes(config)
    if config["pairs"] is None:
        raise ValueError(
            f"the experiment {config['name']} uses no pairs; choose one that does: "
            "experiment=digits_dmd"
        )
    with rank_zero_first():  # who trains a teacher, where there is none
        path = teacher_file(config)
        data = build_data(config["data"])
        teacher = build_teacher(config, data, path)
        teacher.load_or_train()
    teacher.cast_weights()
    print(f"pairs are in {make_pairs(config, teacher, data)}")


main = verb_of_experiments(work)
