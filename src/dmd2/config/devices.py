"""What a trainer's section asks of this machine: processes, one a device, and the options that
depend on them.
"""

import os

import torch

from dmd2.config.check import Config
from dmd2.distributed import process_group


def processes(config: Config) -> int:
    """How many processes a config wants on this machine, one a device; raises ValueError where that
    cannot be.
    """
    section, devices = config["trainer"], config["trainer"]["devices"]
    on_gpu, num_nodes = section["accelerator"] == "gpu", section.get("num_nodes", 1)
    if on_gpu and not torch.cuda.is_available():
        raise ValueError("this experiment wants a GPU, and there is none here; type trainer=cpu")
    num = (torch.cuda.device_count() if on_gpu else 1) if devices == "auto" else devices
    if not isinstance(num, int) or num < 1 or (on_gpu and num > torch.cuda.device_count()):
        raise ValueError(
            f"trainer.devices is a number of devices that there are, or auto; got {devices}"
        )
    if num * num_nodes > 1 and "strategy" not in section:
        raise ValueError(
            f"this trainer takes one device, got trainer.devices={devices}; several: trainer=ddp"
        )
    if process_group.started() and int(os.environ["WORLD_SIZE"]) != num * num_nodes:
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were started for trainer.devices={devices} on "
            f"trainer.num_nodes={num_nodes}; make them agree"
        )
    if num_nodes > 1 and not process_group.started():
        raise ValueError(
            "several machines want a process started for each device, e.g. by torchrun on each of "
            "them"
        )
    return num


def one_process(section: Config) -> Config:
    """A trainer's section without its other ranks."""
    return {
        key: value for key, value in section.items() if key not in ("strategy", "num_nodes")
    } | {"devices": 1}


def trainer_of(config: Config) -> Config:
    """The section as Lightning takes it: complete, and without other ranks where this process is
    alone.
    """
    section: Config = (
        config["trainer"] if process_group.started() else one_process(config["trainer"])
    )
    if "precision" in section and section["precision"] is None:
        section = section | {
            "precision": "bf16-mixed" if section["accelerator"] == "gpu" else "32-true"
        }
    return section
