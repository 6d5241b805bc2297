"""Every draw is a function of (seed, iteration, stream, row) and of nothing else."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.randomness import BLOCK, Draws, normal_rows, seed_of, seeded

KINDS: dict[str, Callable[[Draws, str, int], Tensor]] = {
    "normal": lambda draws, stream, num: draws.normal(stream, (num, 3, 2)),
    "uniform": lambda draws, stream, num: draws.uniform(stream, num),
    "integers": lambda draws, stream, num: draws.integers(stream, 0, 1 << 40, num),
}


@pytest.fixture(params=KINDS)
def draw(request: pytest.FixtureRequest) -> Callable[[Draws, str, int], Tensor]:
    return KINDS[request.param]


def test_the_same_key_draws_the_same_whatever_was_drawn_before(draw):
    first = draw(Draws(3, 17), "noise", 8)
    torch.randn(5)
    other = Draws(3, 17)
    draw(other, "something else", 8)
    assert torch.equal(draw(other, "noise", 8), first)


def test_seeds_iterations_and_streams_differ(draw):
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (1, 10, "a"), (11, 0, "a")]
    drawn = [draw(Draws(seed, iteration), stream, 16) for seed, iteration, stream in keys]
    for i, x in enumerate(drawn):
        for y in drawn[:i]:
            assert (x != y).all()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_at_B_draw_what_one_rank_at_the_whole_batch_draws(draw, world_size):
    whole = draw(Draws(5, 2), "noise", 8)
    shards = [
        draw(Draws(5, 2, rank, world_size), "noise", 8 // world_size) for rank in range(world_size)
    ]
    assert torch.equal(torch.cat(shards), whole)


def test_ranks_draw_what_one_draws_where_a_batch_has_many_blocks(draw):
    num = 12 * BLOCK // 8  # a block and a half of single numbers, nine of the normal draw's rows
    whole = draw(Draws(5, 2), "noise", num)
    for world_size in (3, 12):  # the ends of their rows are inside blocks
        shards = [
            draw(Draws(5, 2, rank, world_size), "noise", num // world_size)
            for rank in range(world_size)
        ]
        assert torch.equal(torch.cat(shards), whole)


def test_a_rank_draws_its_own_rows_and_less_than_two_blocks_beside(monkeypatch):
    drawn: list[int] = []
    randn = torch.randn

    def counted(shape: tuple[int, ...], **options: Any) -> Tensor:
        drawn.append(math.prod(shape))
        return randn(shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    for rank in (0, 501, 999):
        drawn.clear()
        own = Draws(0, 0, rank, 1000).normal("noise", (5, 3, 64, 64))
        assert own.numel() <= sum(drawn) < own.numel() + 2 * BLOCK


def test_neighbouring_blocks_are_independent():
    x = Draws(0, 0).normal("noise", (16, BLOCK))
    correlation = x @ x.T / BLOCK
    # A correlation of N independent normals has a standard deviation of N^-1/2 = 0.0028.
    assert correlation.fill_diagonal_(0).abs().max() < 5 * BLOCK**-0.5


def test_ranks_agree_on_the_sampling_step_and_steps_are_uniform():
    for iteration in range(20):
        steps = {Draws(0, iteration, rank, 8).step(4) for rank in range(8)}
        assert len(steps) == 1
    counts = torch.bincount(torch.tensor([Draws(0, i).step(4) for i in range(4000)]), minlength=4)
    # Four standard deviations of a count of 4000 draws with probability 1/4 are 110.
    assert (counts - 1000).abs().max() < 110


def test_draws_are_standard():
    normal, uniform = Draws(0, 0).normal("n", (100_000,)), Draws(0, 0).uniform("u", 100_000)
    integers = Draws(0, 0).integers("i", -2, 3, 10_000)
    assert normal.mean().abs() < 0.02 and (normal.std() - 1).abs() < 0.02
    assert uniform.min() >= 0 and uniform.max() < 1 and (uniform.mean() - 0.5).abs() < 0.005
    assert integers.unique().tolist() == [-2, -1, 0, 1, 2]


def test_a_sample_s_noise_depends_on_its_number_alone():
    whole = normal_rows(range(10), (2, 3), 0, "sample")
    assert torch.equal(normal_rows(range(4, 7), (2, 3), 0, "sample"), whole[4:7])
    assert torch.equal(normal_rows(range(9, 3, -2), (2, 3), 0, "sample"), whole[[9, 7, 5]])
    assert not torch.equal(normal_rows(range(10), (2, 3), 1, "sample"), whole)
    assert len(whole.flatten(1).unique(dim=0)) == 10


def test_keys_do_not_run_together():
    seeds = {seed_of(*key) for key in [(1, 23), (12, 3), ("1", "2", 3), (1, 2, "3", "")]}
    assert len(seeds) == 4


def test_seeded_block_gives_the_global_generator_back():
    torch.manual_seed(0)
    expected = torch.randn(4)
    torch.manual_seed(0)
    with seeded(7, "head"):
        inside = torch.randn(4)
    assert torch.equal(torch.randn(4), expected)
    with seeded(7, "head"):
        assert torch.equal(torch.randn(4), inside)
    with seeded(8, "head"):
        assert not torch.equal(torch.randn(4), inside)
