"""Train the teacher of an experiment, unless it is in the cache already.

usage: dmd2 pretrain experiment=NAME [KEY=VALUE ...]
"""

from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.distributed.environment import ranks
from dmd2.runs.build import build_data
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.presence import note_teacher_lack
from dmd2.runs.teacher import build_teacher, teacher_file


def work(config: Config) -> None:
    """Train the teacher, or find it, in one process."""
    note_teacher_lack(config).raise_all()
    processes(config)
    # torchrun, or a Slurm job, has a process for each device of the trainer. A teacher here is
    # small, and its training is that of one device.
    if (own := ranks()[0]) > 0:
        print(f"rank {own} leaves the teacher to rank 0")
        return
    config = with_pipeline(config)
    path = teacher_file(config)
    teacher = build_teacher(config, build_data(config["data"]), path)
    teacher.load_or_train()
    print(f"the teacher is {teacher.path}")
