"""Sums that do not depend on the order of their terms, so that ranks and batches cannot be told
from a score.

float64 rounds when it adds, so its sums depend on the order. Here values are first rounded to whole
steps of a grid, at most 2^22 of them, and what remains to whole parts of a step. Products of those,
and 512 of such products together, are whole numbers up to 2^53, which float64 adds without an
error, in a matrix product too; from there on int64 counts, up to 2^19 samples.
"""

import math

import torch
from torch import Tensor

BITS = 22
ROWS = 2 ** (53 - 2 * BITS)  # whose products add exactly in float64
PARTS = 2**17  # of a step


def step_for(scale: float, bits: int = BITS - 5) -> float:
    """The grid's step, a power of two, for values of typical size `scale`: between 1 and 2 times
    2^-bits of it.

    With 17 bits what is beyond 32 scales is held there.
    """
    return 2.0 ** (math.frexp(scale)[1] - bits)


def add_moments(total: Tensor, outer: Tensor, x: Tensor, step: float) -> None:
    """Add the rows of x [N, D] to `total` [2 D] and their outer products to `outer` [D, 2 D],
    int64.

    The first half of the columns counts whole steps, the second parts.
    """
    for rows in x.split(ROWS):
        steps = (rows.double() / step).clamp(-(2**BITS), 2**BITS)
        whole = steps.round()
        both = torch.cat([whole, ((steps - whole) * PARTS).round()], 1)
        total += both.sum(0).long()
        outer += (whole.T @ both).long()


def in_units(total: Tensor, outer: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The sums [D] and [D, D] of such counts in the units of x, float64, but for products of two
    parts (1e-10).
    """
    whole, parts = total.double().chunk(2)
    squares, cross = outer.double().chunk(2, 1)
    return step * (whole + parts / PARTS), step**2 * (squares + (cross + cross.T) / PARTS)
