from itertools import islice

import numpy as np
import pytest

from dmd2.data.sampler import BatchSampler
from dmd2.data.split import stratified


@pytest.mark.parametrize("num_samples, batch_size", [(10, 4), (12, 4), (3, 8), (1, 2)])
def test_every_epoch_covers_every_sample_once(num_samples, batch_size):
    draws = islice(BatchSampler(num_samples, batch_size, seed=0), 3 * num_samples)
    line = np.concatenate([draw.rows for draw in draws])
    for epoch in line[: len(line) // num_samples * num_samples].reshape(-1, num_samples):
        assert sorted(epoch) == list(range(num_samples))


def test_batch_k_needs_no_batch_before_it():
    running = {draw.k: draw.rows for draw in islice(BatchSampler(10, 4, seed=1), 9)}
    for k in (8, 0, 5, 2):
        np.testing.assert_array_equal(BatchSampler(10, 4, seed=1).rows(k), running[k])
    resumed = next(iter(BatchSampler(10, 4, seed=1, start=7)))
    assert resumed.k == 7
    np.testing.assert_array_equal(resumed.rows, running[7])


def test_two_ranks_draw_what_one_draws():
    whole = BatchSampler(10, 6, seed=2)
    halves = [BatchSampler(10, 3, seed=2, rank=rank, world_size=2) for rank in (0, 1)]
    for k in range(8):
        np.testing.assert_array_equal(
            np.concatenate([half.rows(k) for half in halves]), whole.rows(k)
        )


def test_seeds_epochs_and_streams_differ():
    orders = [
        BatchSampler(50, 50, seed=0).rows(0),
        BatchSampler(50, 50, seed=0).rows(1),
        BatchSampler(50, 50, seed=1).rows(0),
        BatchSampler(50, 50, seed=0, stream="pair_order").rows(0),
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_order_is_pinned():
    """Recorded: a changed order would break every resume."""
    assert BatchSampler(6, 6, seed=0).rows(0).tolist() == [1, 5, 0, 3, 2, 4]


def test_stratified_gives_each_class_its_share():
    labels = np.repeat([4, 0, 9], [100, 10, 1])
    train, test = stratified(labels, 11)
    assert sorted([*train, *test]) == list(range(111)) and len(test) == 11
    assert abs((labels[test] == 4).sum() - 10) <= 1 and abs((labels[test] == 0).sum() - 1) <= 1
    np.testing.assert_array_equal(stratified(labels, 11)[1], test)
