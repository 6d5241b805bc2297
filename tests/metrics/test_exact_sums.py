"""Exact sums: the same bits in any order and any division, and as close to float64 as the grid
says.
"""

import torch

from dmd2.metrics.exact_sums import BITS, add_moments, in_units, step_for


def moments(parts, step):
    """The counts of all rows of some parts."""
    num = parts[0].shape[1]
    total, outer = (torch.zeros(shape, dtype=torch.int64) for shape in ((2 * num,), (num, 2 * num)))
    for x in parts:
        add_moments(total, outer, x, step)
    return total, outer


def test_the_step_is_a_power_of_two_of_the_scale():
    assert step_for(1.0) == 2.0**-16 and step_for(0.99) == 2.0**-17
    assert step_for(3 * 0.3) == 2 * step_for(0.3 * 1.1)
    assert step_for(0.0) > 0


def test_any_order_and_any_parts_give_the_same_bits():
    x = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1, 3, 0.1, 1e-4, 1]
    )
    step = step_for(3.0)
    whole = moments([x], step)
    for order, size in (
        (torch.arange(3000), 7),
        (torch.randperm(3000), 999),
        (torch.arange(3000).flip(0), 1),
    ):
        parts = moments(x[order].split(size), step)
        assert all(
            torch.equal(found, expected) for found, expected in zip(parts, whole, strict=True)
        )


def test_the_sums_are_float64_s_to_ten_digits():
    x = torch.randn(1000, 6, generator=torch.Generator().manual_seed(1))
    total, outer = in_units(*moments([x], step_for(1.0)), step_for(1.0))
    x = x.double()
    torch.testing.assert_close(total, x.sum(0), rtol=0, atol=1e-7)
    torch.testing.assert_close(outer, x.T @ x, rtol=1e-9, atol=1e-7)


def test_what_is_beyond_the_grid_is_held_and_still_adds_exactly():
    step = step_for(1.0)
    far = torch.full((512, 2), 1e9)
    total, outer = moments([far], step)
    assert total.tolist() == [512 * 2**BITS] * 2 + [0, 0]
    assert outer[0].tolist() == [512 * 2 ** (2 * BITS)] * 2 + [0, 0]
