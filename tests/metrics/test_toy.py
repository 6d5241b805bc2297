"""Sliced Wasserstein-2 against its closed form, and modes found on perfect and collapsed
samples.
"""

import math

import pytest
import torch

from dmd2.metrics.toy import ModesFound, SlicedWasserstein, quantiles

NO_LABELS = torch.zeros(0)
RING = [[math.cos(math.pi * i / 4), math.sin(math.pi * i / 4)] for i in range(8)]


def distance(real, fake):
    metric = SlicedWasserstein("d")
    metric.set_reference(real, real)
    for batch in fake.split(300):
        metric.update(batch, NO_LABELS)
    return metric.compute()["sliced_wasserstein"].item()


def modes_found(samples, **settings):
    metric = ModesFound("d", RING, std=0.05, **settings)
    for batch in samples.split(300):
        metric.update(batch, NO_LABELS)
    return {name: value.item() for name, value in metric.compute().items()}


def ring(num_modes, num=1600):
    draws = torch.Generator().manual_seed(0)
    centres = torch.tensor(RING)[torch.arange(num) % num_modes]
    return centres + 0.05 * torch.randn(num, 2, generator=draws)


def test_a_shift_in_two_dimensions_costs_half_its_square():
    x = torch.randn(1000, 2)
    shifts = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    squares = [distance(x, x + shift) ** 2 for shift in shifts]
    assert sum(squares) == pytest.approx(9, rel=1e-5)  # exact for any unit directions
    assert squares[0] == pytest.approx(4.5, rel=0.15)  # as 256 random ones go


def test_a_scale_costs_its_difference():
    x = torch.randn(4000, 2)
    assert distance(x, 3 * x) == pytest.approx(2, rel=0.05)  # std of x along any direction is 1


def test_unequal_numbers_pair_quantiles():
    grid = torch.linspace(0.5, 9.5, 10)
    torch.testing.assert_close(quantiles(grid, 10), grid)
    torch.testing.assert_close(quantiles(grid, 5), torch.linspace(1, 9, 5))
    torch.testing.assert_close(quantiles(grid.expand(2, 10), 1), torch.tensor([[5.0], [5.0]]))
    x = torch.randn(3000, 2)
    assert distance(x, x.repeat_interleave(2, 0)) < 0.02
    assert distance(x, x[:1000]) < 0.15


def test_all_modes_of_perfect_samples():
    found = modes_found(ring(8))
    assert found["modes"] == 8
    assert found["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)


def test_modes_missing_from_collapsed_samples():
    assert modes_found(ring(3))["modes"] == 3
    assert modes_found(torch.zeros(100, 2)) == {"modes": 0, "high_quality": 0}
    few = torch.cat(
        [ring(1, 990), torch.tensor(RING[4:5]).repeat(10, 1)]
    )  # 1 % of samples, 8 % of a fair share
    assert modes_found(few)["modes"] == 1
    assert modes_found(few, share=0.05)["modes"] == 2


def test_halves_merge_into_the_whole():
    first, second = ModesFound("d", RING, 0.05), ModesFound("d", RING, 0.05)
    first.update(ring(8)[:700], NO_LABELS)
    second.update(ring(8)[700:], NO_LABELS)
    first.merge_state(second)
    assert {name: value.item() for name, value in first.compute().items()} == modes_found(ring(8))
