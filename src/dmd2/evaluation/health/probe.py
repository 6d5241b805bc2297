"""Numbers of a few samples against real ones: spread, means, range, conditions, near copies.

Samples are x [N, C, ...] in model space, with the number of each one's condition [N]. Spread within
a condition is what a collapsing generator loses first, and what no per-image score shows.
"""

import torch
from torch import Tensor

NEAR = 0.1
"""A near copy is closer to a real sample than so much of the usual distance between real ones."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C] of every channel of x [N, C, ...]."""
    channels = x.transpose(0, 1).flatten(1)
    return channels.mean(1), channels.std(1)


def variance_within(x: Tensor, groups: Tensor) -> Tensor:
    """Unbiased variance [] within groups [N], a mean over all entries of x [N, ...].

    NaN where no group has two samples.

    >>> variance_within(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    tensor(2.)
    """
    numbers, place, sizes = groups.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(numbers), *x.shape[1:], dtype=x.dtype).index_add_(0, place, x)
    means /= sizes.view(-1, *[1] * (x.ndim - 1))
    # As many degrees of freedom as samples, less one mean a group.
    return ((x - means[place]) ** 2).sum(0).mean() / (len(x) - len(numbers))


def condition_share(x: Tensor, groups: Tensor) -> Tensor:
    """The share [] of the variance of x [N, ...] that lies between groups [N]; about 0: none."""
    return 1 - variance_within(x, groups) / x.var(0).mean()


def share_in_float16(weights: Tensor) -> Tensor:
    """The share [] of float32 weights [N] that float16 holds exactly; about 2^-13 unless rounded.

    >>> share_in_float16(torch.tensor([0.5, 1.001]))
    tensor(0.5000)
    """
    return (weights.half().float() == weights).float().mean()


def nearest(x: Tensor, real: Tensor, skipped: int = 0) -> Tensor:
    """Distance [N] of each of x [N, ...] to the nearest of real [M, ...], `skipped` left out."""
    distances = torch.cdist(x.flatten(1), real.flatten(1))
    return distances.kthvalue(skipped + 1, 1).values


class RealRows:
    """Real samples to compare with, on the host.

    x        Samples [N, C, ...] in model space.
    classes  Their classes int64 [N]; zeros where there are none.
    """

    def __init__(self, x: Tensor, classes: Tensor) -> None:
        self.x, self.classes = x, classes
        self.mean, std = moments(x)
        self.std = std.clamp_min(1e-6)
        queries = x[:: -(-len(x) // 200)]
        # Of a real sample the nearest one is itself.
        self.usual_distance = nearest(queries, x, skipped=1).median()

    def compare(self, x: Tensor, conditions: Tensor) -> dict[str, Tensor]:
        """Numbers [] of samples x [N, C, ...] with the numbers of their conditions [N]."""
        mean, std = moments(x)
        within = variance_within(x, conditions) / variance_within(self.x, self.classes)
        near = nearest(x, self.x) < NEAR * self.usual_distance
        return {
            "spread": within.sqrt(),
            "mean_shift": ((mean - self.mean).abs() / self.std).max(),
            "std_ratio": (std / self.std).max(),
            "near_copies": near.float().mean(),
            "condition_share": condition_share(x, conditions),
            "data_condition_share": condition_share(self.x, self.classes),
        }
