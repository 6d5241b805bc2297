"""This process's device: where a network is, and the most memory that was held there."""

import resource

import torch
from torch import nn


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without any."""
    return next((x.device for x in network.state_dict().values()), torch.device("cpu"))


def peak_memory_bytes() -> int:
    """The most memory this process has held: of the GPU where it used one, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    # Linux counts it in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
