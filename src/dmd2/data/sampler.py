"""The order of the data: batch k is a function of (seed, k, rank), so resuming is to start at k.

The permutations of all epochs are laid end to end; global batch k is positions [k GB, (k + 1) GB)
of that line, GB = batch size times ranks, and rank r owns rows [r B, (r + 1) B) of it. The order of
the samples does not depend on how many ranks share it.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from dmd2.randomness import generator


class Draw(NamedTuple):
    """Number of a batch, and its rows on this rank, int64 [B]."""

    k: int
    rows: np.ndarray


class BatchSampler:
    """Endless draws from `num_samples` samples, from batch `start` on.

    `stream` names the order: two samplers of one seed and different streams are independent.
    Needs Trainer(use_distributed_sampler=False), since it knows the ranks itself.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        stream: str = "order",
    ) -> None:
        assert num_samples > 0 and batch_size > 0 and 0 <= rank < world_size
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size, self.start, self.stream = rank, world_size, start, stream
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __iter__(self) -> Iterator[Draw]:
        for k in count(self.start):
            yield Draw(k, self.rows(k))

    def rows(self, k: int) -> np.ndarray:
        """Row numbers of batch k on this rank, int64 [B]."""
        first = (k * self.world_size + self.rank) * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.num_samples)
        return np.concatenate([self._order(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            draw = generator(self.seed, epoch, self.stream)
            self._permutation = torch.randperm(self.num_samples, generator=draw).numpy()
            self._epoch = epoch
        return self._permutation
