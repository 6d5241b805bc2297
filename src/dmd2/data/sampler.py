"""Batch sampler: the order of rows as a function of seed and iteration, for any number of ranks.

The shuffled epochs are laid end to end in one line. Global batch k is the positions
[k * GB, (k + 1) * GB) of that line, where GB is batch size times ranks, and rank r has the rows
[r * B, (r + 1) * B) of it. So the order does not depend on how many ranks share it, and resuming at
batch k needs no batch before it.

Where rows are of several buckets, each global batch is of one (`BucketSampler`).
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from dmd2.randomness import generator


class BatchRows(NamedTuple):
    """Number k of a batch, and the numbers of its rows on this rank, int64 [B]."""

    k: int
    rows: np.ndarray


class BatchSampler:
    """Endless batches of row numbers, from batch `start` on.

    num_samples  Rows to draw from; each is drawn once an epoch.
    batch_size   Rows per batch on each rank.
    seed         Seed of the shuffling.
    rank         Number of this process.
    world_size   How many processes share a global batch.
    start        First batch.
    stream       Names the order: two streams of one seed are independent.

    Needs Trainer(use_distributed_sampler=False), since it divides the data among ranks itself.
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

    # Runs in the training process; loader workers are sent the row numbers.
    def __iter__(self) -> Iterator[BatchRows]:
        for k in count(self.start):
            yield BatchRows(k, self.rows(k))

    def rows(self, k: int) -> np.ndarray:
        """Row numbers of batch k on this rank, int64 [B]."""
        # Position in the line of shuffled epochs; an epoch's own positions are 0..num_samples - 1.
        first = (k * self.world_size + self.rank) * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.num_samples)
        # A batch may cross the end of an epoch, or of several where it is larger than the data.
        return np.concatenate([self._order(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def _order(self, epoch: int) -> np.ndarray:
        # The last permutation is remembered: a whole epoch of batches asks for the same one.
        if epoch != self._epoch:
            draw = generator(self.seed, epoch, self.stream)
            self._permutation = torch.randperm(self.num_samples, generator=draw).numpy()
            self._epoch = epoch
        return self._permutation


class BucketSampler(BatchSampler):
    """Endless batches of rows of one bucket each, which is the same on all ranks.

    nums  Rows of each bucket; the buckets' rows are numbered one bucket after the other.

    The buckets of batches 0, 1, ... are those of all rows in shuffled order, over and over; so a
    bucket's share of the batches is its share of the rows. Its own batches are drawn as those of
    `BatchSampler`. Takes the arguments of that besides.
    """

    def __init__(self, nums: Sequence[int], batch_size: int, *order: Any, **named: Any) -> None:
        super().__init__(sum(nums), batch_size, *order, **named)
        self.nums, self.firsts = nums, np.cumsum([0, *nums[:-1]])
        self.buckets = [
            BatchSampler(
                num, batch_size, self.seed, self.rank, self.world_size, stream=f"{self.stream}/{i}"
            )
            for i, num in enumerate(nums)
        ]

    def rows(self, k: int) -> np.ndarray:
        """Row numbers of batch k on this rank, int64 [B], all of one bucket."""
        cycle, place = divmod(k, self.num_samples)
        until_now = self._order(cycle)[: place + 1]
        # As many batches of the bucket came before as rows of it, in this cycle and the others.
        i = int(np.searchsorted(self.firsts, until_now[-1], "right")) - 1
        first, num = self.firsts[i], self.nums[i]
        earlier = np.count_nonzero((until_now[:-1] >= first) & (until_now[:-1] < first + num))
        return first + self.buckets[i].rows(cycle * num + int(earlier))
