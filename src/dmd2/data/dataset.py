"""Dataset and DataLoader of whole batches: a batch is one indexing of memory-mapped arrays.

Gathering sample by sample and stacking would cost a Python call and a copy for each row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dmd2.data.pairs import PairStore
from dmd2.data.sampler import BatchRows, BatchSampler
from dmd2.data.worker_signals import ignore_signals


class BatchDataset(Dataset[dict[str, Any]]):
    """Batches of stored samples, uint8 for images, and of noise-image pairs where there are any.

    stored      Arrays, or `Joined` ones, by the key that a batch has their rows under.
    pairs       The pairs, or None.
    pair_order  Which pairs a batch has; given together with `pairs`.
    """

    def __init__(
        self,
        stored: Mapping[str, Any],
        pairs: PairStore | None,
        pair_order: BatchSampler | None,
    ) -> None:
        self.stored, self.pairs, self.pair_order = stored, pairs, pair_order

    # torch asks for a batch by this method, with whatever the batch sampler yields.
    def __getitems__(self, batch_rows: BatchRows) -> dict[str, Any]:
        batch = {name: _take(array, batch_rows.rows) for name, array in self.stored.items()}
        if self.pairs is not None and self.pair_order is not None:
            # Of the same number k, and of an order of their own, since there are fewer pairs.
            rows = self.pair_order.rows(batch_rows.k)
            batch["pair_noise"] = _take(self.pairs.noise, rows)
            batch["pair_image"] = _take(self.pairs.images, rows)
            batch["pair_label"] = _take(self.pairs.labels, rows)
        return batch | {"index": batch_rows.k}

    def __len__(self) -> int:
        # Lightning asks only in order to replace our sampler by one that splits data among ranks,
        # which ours does already.
        raise TypeError("batches are endless; set trainer.use_distributed_sampler=false")


class Joined:
    """Arrays [N_i, ...] of several shapes, whose rows are numbered one array after the other.

    Of its rows, those of one array at a time can be taken.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self.firsts = np.cumsum([0, *(len(array) for array in arrays[:-1])])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        i = int(np.searchsorted(self.firsts, rows[0], "right")) - 1
        taken: np.ndarray = self.arrays[i][rows - self.firsts[i]]
        return taken


def batch_loader(
    dataset: BatchDataset, order: BatchSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """The DataLoader of batches in `order`; any number of workers gives the same ones."""
    return DataLoader(
        dataset,
        batch_sampler=order,  # type: ignore[arg-type]  # its BatchRows are for __getitems__
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=as_is,
        persistent_workers=num_workers > 0,
        worker_init_fn=ignore_signals,
    )


def as_is(batch: Any) -> Any:
    """Collate function that changes nothing: the dataset gives whole batches."""
    return batch


def _take(array: Any, rows: np.ndarray) -> Tensor:
    # Indexing copies the rows out of the memory map; asarray drops the type np.memmap they keep.
    return torch.from_numpy(np.asarray(array[rows]))
