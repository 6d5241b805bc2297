"""Make the noise-image pairs of an experiment's teacher (DMD's data set); resumes where it stopped.

usage: dmd2 pairs experiment=digits_dmd [pairs.num_pairs=10000] [KEY=VALUE ...]

All devices of the experiment's trainer share the work, as in `dmd2 train`; on several machines,
start it by torchrun.
"""

from dmd2.cli.processes import in_all_processes
from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.distributed.process_group import rank_zero_first
from dmd2.runs.build import build_data
from dmd2.runs.cached import make_pairs
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.presence import note_teacher_lack
from dmd2.runs.teacher import build_teacher, teacher_file


def work(config: Config) -> None:
    """Make the pairs in as many processes as the trainer takes."""
    note_teacher_lack(config).raise_all()
    in_all_processes(config, make)


def make(config: Config) -> None:
    """Make the pairs that are missing, in this process or as one of the ranks."""
    processes(config)  # also checks that the devices are there
    if config["pairs"] is None:
        raise ValueError(
            f"the experiment {config['name']} uses no pairs; choose one that does: "
            "experiment=digits_dmd"
        )
    # Rank 0 may have to train the teacher; the others then find it in the cache.
    with rank_zero_first():
        config = with_pipeline(config)
        path = teacher_file(config)
        data = build_data(config["data"])
        teacher = build_teacher(config, data, path)
        teacher.load_or_train()
    # A run casts them before it makes pairs, too: both make the very same images.
    teacher.cast_weights()
    print(f"pairs are in {make_pairs(config, teacher, data)}")
