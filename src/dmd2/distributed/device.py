"""This process's device: where a network is, what goes there, and the most memory held there."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are, or its buffers; the CPU for one without any."""
    return next(
        (x.device for x in chain(network.parameters(), network.buffers())), torch.device("cpu")
    )


def sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`; what comes from the host to a GPU goes through pinned memory."""
    # A copy from other memory would wait for all that the GPU still has to do.
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


@contextmanager
def lent(network: nn.Module, device: torch.device) -> Iterator[None]:
    """A block in which a network is on `device`; it then goes back to where it was."""
    home = device_of(network)
    network.to(device)
    try:
        yield
    finally:
        network.to(home)


def forget_peak_memory() -> None:
    """Count the most memory anew: a sweep's jobs may follow each other in one process."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    # Linux forgets its own count at a 5; elsewhere it is of the process's whole life.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory_bytes() -> int:
    """The most memory this process has held: of the GPU where it used one, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    # Linux counts it in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
