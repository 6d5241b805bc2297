"""The `trainer` section on this machine: number of processes, one a device; mixed precision."""

import torch

from dmd2.config.check import Config
from dmd2.distributed.environment import ALONE, ranks, started
from dmd2.distributed.process_group import world_size


def processes(config: Config) -> int:
    """The number of processes that a config asks for on this machine, one a device.

    Raises ValueError where there are fewer GPUs.
    """
    section, devices = config["trainer"], config["trainer"]["devices"]
    on_gpu, num_nodes = section["accelerator"] == "gpu", section.get("num_nodes", 1)
    if on_gpu and not torch.cuda.is_available():
        # What was asked for stays: of several processes the CPU can be told as well.
        several = isinstance(devices, int) and devices > 1 and "strategy" in section
        raise ValueError(
            "this experiment wants a GPU, and there is none here; type "
            + (
                f"trainer=ddp trainer.accelerator=cpu trainer.devices={devices}, or trainer=cpu "
                "for one process"
                if several
                else "trainer=cpu"
            )
        )
    # On a CPU "auto" is one process: several would share the same cores.
    num = (torch.cuda.device_count() if on_gpu else 1) if devices == "auto" else devices
    if not isinstance(num, int) or num < 1 or (on_gpu and num > torch.cuda.device_count()):
        raise ValueError(
            f"trainer.devices is a number of devices that there are, or auto; got {devices}"
        )
    # trainer=cpu and trainer=gpu have no strategy, and Lightning's own would be plain DDP, which
    # cannot train two networks by turns.
    if num * num_nodes > 1 and "strategy" not in section:
        raise ValueError(
            f"this trainer takes one device, got trainer.devices={devices}; several: trainer=ddp "
            f"trainer.accelerator={section['accelerator']} trainer.devices={devices}"
        )
    # We start processes on one machine; nobody tells us where the others are.
    if num_nodes > 1 and not started():
        raise ValueError(
            "several machines want a process started for each device, e.g. by torchrun on each of "
            "them"
        )
    return num


def check_started(config: Config) -> None:
    """Raise ValueError where somebody, e.g. torchrun, has started more or fewer processes.

    A verb that does its work in one process does not ask.
    """
    num = processes(config) * config["trainer"].get("num_nodes", 1)
    if started() and (found := ranks()[1]) != num:
        raise ValueError(
            f"WORLD_SIZE={found} processes were started for trainer.devices="
            f"{config['trainer']['devices']} on trainer.num_nodes="
            f"{config['trainer'].get('num_nodes', 1)}; make them agree, or, {ALONE}"
        )


def one_process(section: Config) -> Config:
    """A `trainer` section changed to a single process on a single device."""
    return {
        key: value for key, value in section.items() if key not in ("strategy", "num_nodes")
    } | {"devices": 1}


def trainer_of(config: Config) -> Config:
    """The arguments of Lightning's Trainer in the `trainer` section.

    They are those of a single process where this one is in no process group. A precision of null
    becomes bf16 mixed precision on a GPU, and float32 on a CPU.
    """
    # E.g. `dmd2 pretrain` in one process, with a config of many devices.
    section: Config = config["trainer"] if world_size() > 1 else one_process(config["trainer"])
    if "precision" in section and section["precision"] is None:
        section = section | {
            "precision": "bf16-mixed" if section["accelerator"] == "gpu" else "32-true"
        }
    return section
