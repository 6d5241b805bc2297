"""Kernel Inception distance, KID (Bińkowski et al. 2018, arXiv:1801.01401, section 4)."""

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures
from dmd2.randomness import generator


def cubic_mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy [] of x [N, D] and y [N, D], in float64.

    The kernel is (x . y / D + 1)^3 (Bińkowski et al. 2018, section 4). Being unbiased, the
    estimate of a small discrepancy can be negative.
    """
    x, y = x.double(), y.double()
    num, dim = x.shape

    # Bińkowski et al. 2018, section 4: k(a, b) = (a . b / D + 1)^3.
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / dim + 1) ** 3

    # Over i != j only: with k(x_i, x_i) the estimate would be biased upwards.
    def mean_of_pairs(k: Tensor) -> Tensor:
        return (k.sum() - k.trace()) / (num * (num - 1))

    # MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y).
    return mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()


class KernelDistance(StoredFeatures):
    """KID: mean of `cubic_mmd2` over random subsets of train split and samples, reported as `name`.

    num_subsets, subset_size  How many subsets, and of how many rows; fewer where a set is smaller.
    seed                      The subsets depend on it alone.
    """

    def __init__(
        self,
        detector: str,
        name: str = "kid",
        num_subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
        prefix: str = "",
    ) -> None:
        super().__init__(detector, prefix)
        self.name, self.reports, self.seed = name, (name,), seed
        self.num_subsets, self.subset_size = num_subsets, subset_size

    def compute(self) -> dict[str, Tensor]:
        """{name: the mean over the subsets}."""
        real, fake = self.reference, self.stored()
        # One size for both: `cubic_mmd2` wants as many rows of each.
        size = min(self.subset_size, len(real), len(fake))
        subsets = []
        for i in range(self.num_subsets):
            draws = generator(self.seed, i, "kernel distance")
            # Permutations of the CPU's generator, so that every device takes the same subsets.
            rows_real, rows_fake = (
                torch.randperm(len(x), generator=draws)[:size].to(x.device) for x in (real, fake)
            )
            subsets.append(cubic_mmd2(real[rows_real], fake[rows_fake]))
        return {self.name: torch.stack(subsets).mean()}
