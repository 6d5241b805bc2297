"""Ranks on gloo, as forks of this process, that each write down what they found; trains in them,
and counts what they send.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, distributed

from dmd2.data.base import DataModule
from dmd2.distributed import process_group
from dmd2.training.module import DMD
from dmd2.training.strategies import ProcessEnvironment, ReplicatedStrategy
from lives import complete, lives
from test_module import toy, trainer

COLLECTIVES = {
    name: name
    for name in (
        "all_reduce",
        "broadcast",
        "all_gather",
        "all_gather_object",
        "broadcast_object_list",
        "barrier",
    )
} | {
    # torch's name of old, and since 2.13
    "all_gather_into_tensor": "all_gather",
    "all_gather_single": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
}
FLOAT = 4
NETWORKS = ("generator", "critic")


def found_by(
    task: Callable[[], dict[str, Any]], folder: Path, num: int = 2
) -> list[dict[str, Any]]:
    """What `task` returns in each of `num` ranks."""
    complete(lives(folder / "said.txt", num, run=partial(_as_rank, task, folder)), 300)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(num)]


def _as_rank(task: Callable[[], dict[str, Any]], folder: Path) -> None:
    process_group.init_process_group(on_gpu=False)
    torch.save(task(), folder / f"{process_group.rank()}.pt")
    process_group.destroy_process_group()


def train_in_all_ranks(
    dmd: DMD,
    max_steps: int,
    strategy: ReplicatedStrategy,
    *callbacks: L.Callback,
    data: DataModule | None = None,
    num_nodes: int = 1,
    **options: Any,
) -> DMD:
    """Train as one of the ranks, at 8 samples a rank."""
    trainer(
        max_steps,
        *callbacks,
        devices=process_group.world_size() // num_nodes,
        num_nodes=num_nodes,
        strategy=strategy,
        plugins=[ProcessEnvironment()],
        **options,
    ).fit(dmd, datamodule=data or toy(batch_size=8))
    return dmd


@contextmanager
def counted() -> Iterator[list[tuple[str, int]]]:
    """The collectives that this process takes part in, each with its bytes."""
    calls: list[tuple[str, int]] = []
    originals = {
        name: getattr(distributed, name) for name in COLLECTIVES if hasattr(distributed, name)
    }

    def wrap(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            sent = [x.nbytes for x in (*arguments, *options.values()) if isinstance(x, Tensor)]
            calls.append((COLLECTIVES[name], max(sent, default=0)))
            return originals[name](*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in originals:
            patch.setattr(distributed, name, wrap(name))
        yield calls
