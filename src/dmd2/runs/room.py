"""Whether disk and memory have room for a run."""

import os
import shutil
from pathlib import Path

import torch

from dmd2.config.check import Config
from dmd2.runs.copies import wants_shards

FLOAT_BYTES = 4
ADAM = 2
"""Numbers that the optimizer keeps of a parameter."""


def check_disk(config: Config, num: int) -> None:
    """Raise OSError where the disk has no room for the checkpoints that are kept."""
    trained, averages = num_trained(config, num), len(config["ema"]) * num
    # The best one, and the one that is being written, lie beside the newest.
    num_kept = config["checkpoint"]["keep"] + 2
    needed = num_kept * FLOAT_BYTES * (trained * (1 + ADAM) + averages)
    folder = Path(config["paths"]["run"]).absolute()
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and {num_kept} checkpoints take "
            f"about {needed / 1e9:.1f}; type paths.run=DIR on another disk, or checkpoint.keep=1"
        )


def check_memory(config: Config, num: int) -> None:
    """Raise OSError where weights, gradients and optimizers alone do not fit into memory."""
    on_gpu = config["trainer"]["accelerator"] == "gpu"
    # In shards each device has a part; a run may be checked where its GPU is not.
    if wants_shards(config) or (on_gpu and not torch.cuda.is_available()):
        return
    free = (
        torch.cuda.mem_get_info()[0]
        if on_gpu
        else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    trained, averages = num_trained(config, num), len(config["ema"]) * num
    needed = FLOAT_BYTES * (num + trained * (2 + ADAM) + averages)
    if free < needed:
        raise OSError(
            f"the {'GPU' if on_gpu else 'machine'} has {free / 1e9:.1f} GB of memory free, and "
            f"weights, gradients and optimizers alone take {needed / 1e9:.1f}; type trainer=fsdp, "
            "or lora=both"
        )


def num_trained(config: Config, num: int) -> int:
    """The parameters that are trained, of generator and critic; LoRA's few are not counted."""
    lora = config.get("lora", {})
    return sum(num for name in ("generator", "critic") if lora.get(name) is None)
