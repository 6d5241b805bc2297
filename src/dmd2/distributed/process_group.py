"""Initialise the process group (NCCL or gloo); rank, world size, broadcast and barrier.

A process that was started alone is rank 0 of 1; `dmd2.distributed.environment` says which it is.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from dmd2.distributed.environment import local_rank, ranks, started
from dmd2.distributed.rendezvous import meet
from dmd2.io.hashed_tensors import digest

T = TypeVar("T")
# Long, since rank 0 may train a teacher while the others wait. A rank that died is noticed
# earlier, by its closed connection.
TIMEOUT = timedelta(days=7)

COLLECTIVE_MINUTES = 60
"""Rank 0 alone writes pictures and checkpoints, while the others wait in the next all-reduce."""


def init_process_group(on_gpu: bool, minutes: float = COLLECTIVE_MINUTES) -> None:
    """Initialise the process group: gradients go over NCCL or gloo, Python objects over gloo.

    minutes  How long a rank waits for the others where gradients are sent; then the run fails.

    It can be called again after `destroy_process_group`, by every rank the same number of times.
    Raises ValueError that names the ranks that do not come.
    """
    if on_gpu:
        # NCCL works on the current device, so each rank chooses its own before the group is made.
        torch.cuda.set_device(local_rank())
    store, (own_rank, num_ranks) = _store(), ranks()
    # The store still holds the addresses of a group that was destroyed: each group has keys of
    # its own, and the ranks agree on the number since all have made as many groups.
    prefixed = distributed.PrefixStore(f"process group {next(_group_numbers)}", store)
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=prefixed,
        rank=own_rank,
        world_size=num_ranks,
        timeout=timedelta(minutes=minutes),
    )
    _host_group()  # making a group is collective: do it here, where all ranks surely are


def destroy_process_group() -> None:
    """Destroy the process group; all ranks must call it."""
    _host_group.cache_clear()  # it goes with the default group
    distributed.destroy_process_group()


@contextmanager
def process_group(on_gpu: bool, minutes: float = COLLECTIVE_MINUTES) -> Iterator[None]:
    """A block inside the process group, if this process is one of several ranks.

    `init_process_group` makes it. Only rank 0 prints to stdout. A block that raises does not
    destroy the group.
    """
    if not started():
        yield
        return
    init_process_group(on_gpu, minutes)
    with (
        open(os.devnull, "w", encoding="utf-8") as silence,
        redirect_stdout(silence if rank() else sys.stdout),
    ):
        yield
    # Not in a `finally`: the other ranks may be inside a collective, and this one would wait for
    # them in place of reporting its error.
    destroy_process_group()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_rank_zero() -> bool:
    """Whether this is the rank that prints and writes files; true without a process group."""
    return rank() == 0


def world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank_blocks(rows: range, size: int) -> Iterator[range]:
    """This rank's blocks of `size` consecutive rows: rank b % world_size takes block b."""
    # Blocks are not divided among ranks. So the same rows go through a network together on any
    # number of ranks, and every result is the same to the last bit.
    for start in range(0, len(rows), size)[rank() :: world_size()]:
        yield rows[start : start + size]


def broadcast_from_rank_zero(make: Callable[[], T]) -> T:
    """Call `make` on rank 0 alone, and return its result, a picklable object, on all ranks."""
    if world_size() == 1:
        return make()
    objects = [make() if is_rank_zero() else None]
    distributed.broadcast_object_list(objects, 0, group=_host_group())
    return objects[0]  # type: ignore[return-value]


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """A block that rank 0 completes before the others begin, who then read what it has cached."""
    if not is_rank_zero():
        barrier()
    yield
    # The others' second half of the same barrier. Not in a `finally`: where rank 0 failed, the
    # others must not go on with half a cache.
    if is_rank_zero():
        barrier()


def barrier() -> None:
    """Wait until all ranks are here."""
    if world_size() > 1:
        distributed.barrier(group=_host_group())


def all_reduce_max(number: int) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return number
    found = torch.tensor(number)
    distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_host_group())
    return int(found)


def check_same_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names the ranks whose tensors are not bit-equal to those of rank 0."""
    if world_size() == 1:
        return
    # Hashes in place of tensors: 64 characters a rank cross the network, whatever the network's
    # size.
    digests: list[Any] = [None] * world_size()
    distributed.all_gather_object(digests, digest(tensors), group=_host_group())
    if others := [i for i, found in enumerate(digests) if found != digests[0]]:
        raise ValueError(
            f"rank {', '.join(map(str, others))} of {world_size()} starts with other weights than "
            "rank 0; "
            "see that all machines read the same files and run the same versions"
        )


_group_numbers = count()


@cache  # a second rendezvous would start a second server on rank 0's port
def _store() -> distributed.TCPStore:
    return meet()


# A gloo group of its own beside NCCL's: objects need no way over the GPU, and a wait in it does
# not end at NCCL's timeout.
@cache
def _host_group() -> Any:
    return distributed.new_group(backend="gloo", timeout=TIMEOUT)
