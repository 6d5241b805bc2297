"""This process among the ranks of a run, and what they tell each other on the host; alone it is
rank 0 of 1.

The environment says who it is, in torchrun's words: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT.
"""

import hashlib
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

T = TypeVar("T")
TIMEOUT = timedelta(days=7)
"""Rank 0 may train a teacher while the others wait; one that died is noticed by its closed
connection instead.
"""


def started() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


def init_process_group(on_gpu: bool) -> None:
    """Meet the other ranks, who have met as often: gradients go over NCCL or gloo, words over
    gloo.
    """
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, own, num = _meeting_place()
    fresh = distributed.PrefixStore(
        f"meeting {next(_meetings)}", store
    )  # the last one's addresses are stale
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", store=fresh, rank=own, world_size=num
    )
    _host()


def destroy_process_group() -> None:
    """Part from the others, who are leaving too."""
    _host.cache_clear()
    distributed.destroy_process_group()


@contextmanager
def process_group(on_gpu: bool) -> Iterator[None]:
    """A block among the other ranks, if this process was started as one of several; rank 0 alone
    prints.

    One that fails leaves without parting from them.
    """
    if not started():
        yield
        return
    init_process_group(on_gpu)
    with open(os.devnull, "w") as silence, redirect_stdout(silence if rank() else sys.stdout):
        yield
    destroy_process_group()


def rank() -> int:
    """This process's number."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def broadcast_from_rank_zero(make: Callable[[], T]) -> T:
    """What rank 0 makes, on all ranks."""
    if world_size() == 1:
        return make()
    said = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(said, 0, group=_host())
    return said[0]  # type: ignore[return-value]


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """A block that rank 0 is through with before the others begin: they find in caches what it has
    made.
    """
    if rank() > 0:
        distributed.barrier(group=_host())
    yield
    if rank() == 0 and world_size() > 1:
        distributed.barrier(group=_host())


def all_reduce_max(number: int) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return number
    found = torch.tensor(number)
    distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_host())
    return int(found)


def check_same_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names the ranks whose tensors are not those of rank 0, bit by bit."""
    if world_size() == 1:
        return
    digests: list[Any] = [None] * world_size()
    distributed.all_gather_object(digests, digest(tensors), group=_host())
    if others := [i for i, digest in enumerate(digests) if digest != digests[0]]:
        raise ValueError(
            f"rank {', '.join(map(str, others))} of {world_size()} starts with other weights than "
            "rank 0; "
            "see that all machines read the same files and run the same versions"
        )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


_meetings = count()


@cache
def _meeting_place() -> Any:
    return next(distributed.rendezvous("env://"))


@cache
def _host() -> Any:
    return distributed.new_group(backend="gloo", timeout=TIMEOUT)
