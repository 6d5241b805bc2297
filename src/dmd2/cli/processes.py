"""A command's task in as many processes as a config's trainer takes, one a device."""

from collections.abc import Callable
from functools import partial

from dmd2.cli.errors import one_line
from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.distributed import process_group, slurm
from dmd2.distributed.launch import launch


def in_all_processes(config: Config, task: Callable[[Config], None]) -> None:
    """Do the task, a function of a module; several processes are ranks
    (`dmd2.distributed.process_group`), who share its work.
    """
    if process_group.started():
        as_rank(task, config)
    elif (num := processes(config)) == 1:
        task(config)
    elif slurm.active():
        raise ValueError(f"a Slurm job has a task for each device; type --ntasks-per-node={num}")
    else:
        launch(partial(as_rank, task), config, num, one_line)


def as_rank(task: Callable[[Config], None], config: Config) -> None:
    """Do one rank's part; rank 0 speaks for all, and its config, with the run's name, is
    everybody's.
    """
    with process_group.process_group(config["trainer"]["accelerator"] == "gpu"):
        task(process_group.broadcast_from_rank_zero(lambda: config))
