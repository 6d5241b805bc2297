"""Exact sums of features and of their products: the same for any order, batch size and ranks.

float64 rounds when it adds, so its sums depend on the order of their terms. Here a value is first
rounded to an integer number of steps of a grid, at most 2^22, and the rest to an integer number of
parts of a step. Products of two such integers, and 512 such products together, are integers up to
2^53. float64 adds these without an error, in a matrix product too. Above that int64 counts, for up
to 2^19 samples.
"""

import math

import torch
from torch import Tensor

# A value has at most 2^BITS steps.
BITS = 22
# Rows whose products add exactly in float64, which has 53 bits.
ROWS = 2 ** (53 - 2 * BITS)
# Parts of a step.
PARTS = 2**17


def step_for(scale: float, bits: int = BITS - 5) -> float:
    """The grid's step for values of typical size `scale`: a power of two.

    It is 1 to 2 times scale / 2^bits. With the default, 17 bits, values are clamped at 32 scales.

    >>> step_for(1.0)
    1.52587890625e-05
    """
    # A power of two: dividing by it and multiplying by it again does not round.
    return 2.0 ** (math.frexp(scale)[1] - bits)


def add_moments(total: Tensor, outer: Tensor, x: Tensor, step: float) -> None:
    """Add the rows of x [N, D] to `total` [2 D], and their outer products to `outer` [D, 2 D].

    Both are int64 and changed in place. The first half of the columns counts steps, the second
    parts of a step.
    """
    for rows in x.split(ROWS):
        steps = (rows.double() / step).clamp(-(2**BITS), 2**BITS)
        integer = steps.round()
        both = torch.cat([integer, ((steps - integer) * PARTS).round()], 1)
        total += both.sum(0).long()
        # Steps times steps and steps times parts; parts times parts are below the precision.
        outer += (integer.T @ both).long()


def in_units(total: Tensor, outer: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The sums [D] and [D, D] in the units of x, float64, of what `add_moments` counted.

    Products of two parts are missing: a relative error of 1e-10.
    """
    steps, parts = total.double().chunk(2)
    squares, cross = outer.double().chunk(2, 1)
    # (s + p / PARTS) (s' + p' / PARTS), without p p' / PARTS^2.
    return step * (steps + parts / PARTS), step**2 * (squares + (cross + cross.T) / PARTS)
