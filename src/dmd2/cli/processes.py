"""Runs a verb's task in as many processes as the config's `trainer` asks for, one a device."""

from collections.abc import Callable
from functools import partial

from dmd2.cli.errors import one_line
from dmd2.cli.pipes import outliving_readers
from dmd2.config.check import Config
from dmd2.config.devices import check_started, processes
from dmd2.config.keys import node_at
from dmd2.distributed import process_group, slurm
from dmd2.distributed.environment import started
from dmd2.distributed.launch import launch


def in_all_processes(config: Config, task: Callable[[Config], None]) -> None:
    """Run `task` in every process; it must be a function of a module, which can be pickled.

    Several processes are the ranks of a process group. Raises ValueError where others were started
    than the trainer has devices.
    """
    # torchrun, or Slurm with its variables renamed, has started the processes; this is one.
    if started():
        check_started(config)  # before this one waits for the others
        as_rank(task, config)
    elif (num := processes(config)) == 1:
        task(config)
    elif slurm.active():
        # srun starts the ranks, on all nodes of a job, and signals each of them.
        raise ValueError(f"a Slurm job has a task for each device; type --ntasks-per-node={num}")
    else:
        launch(partial(as_rank, task), config, num, one_line)


def as_rank(task: Callable[[Config], None], config: Config) -> None:
    """Run the task as one rank of the process group, with rank 0's config."""
    # The config names the run's directory after the time, which differs between the processes of
    # torchrun: rank 0's is taken.
    on_gpu = config["trainer"]["accelerator"] == "gpu"
    # A strategy of somebody else's says nothing, and may be a name alone.
    said = node_at(config, "trainer.strategy.timeout_minutes")
    minutes = process_group.COLLECTIVE_MINUTES if said is None else said
    with outliving_readers(), process_group.process_group(on_gpu, minutes):
        task(process_group.broadcast_from_rank_zero(lambda: config))
