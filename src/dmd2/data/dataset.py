"""Whole batches gathered by one indexing of the memmap, instead of sample by sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dmd2.data.pairs import PairStore
from dmd2.data.sampler import BatchSampler, Draw


class Batches(Dataset[dict[str, Any]]):
    """Batches of arrays by name as stored, uint8 for images, and of pairs where there are any."""

    def __init__(
        self,
        stored: Mapping[str, np.ndarray],
        pairs: PairStore | None,
        pair_order: BatchSampler | None,
    ) -> None:
        self.stored, self.pairs, self.pair_order = stored, pairs, pair_order

    def __getitems__(self, draw: Draw) -> dict[str, Any]:
        batch = {name: _take(array, draw.rows) for name, array in self.stored.items()}
        if self.pairs is not None and self.pair_order is not None:
            rows = self.pair_order.rows(draw.k)
            batch["pair_noise"] = _take(self.pairs.noise, rows)
            batch["pair_image"] = _take(self.pairs.images, rows)
            batch["pair_label"] = _take(self.pairs.labels, rows)
        return batch | {"index": draw.k}

    def __len__(self) -> int:
        # Lightning asks only to put its own sampler in the place of ours, which ranks share
        # already.
        raise TypeError("batches are endless; set trainer.use_distributed_sampler=false")


def as_is(batch: Any) -> Any:
    """The collate function of batches that are whole already."""
    return batch


def _take(array: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array[rows]))
