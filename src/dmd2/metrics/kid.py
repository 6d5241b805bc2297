"""Kernel distance (KID) of Bińkowski et al. 2018 (arXiv:1801.01401), section 4."""

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures
from dmd2.randomness import generator


def cubic_mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy of x, y [N, D] under the kernel (x . y / D +
    1)^3.
    """
    x, y = x.double(), y.double()
    num, dim = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / dim + 1) ** 3

    def mean_of_pairs(k: Tensor) -> Tensor:
        return (k.sum() - k.trace()) / (num * (num - 1))

    return mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()


class KernelDistance(StoredFeatures):
    """Mean of `cubic_mmd2` over random subsets of the train split and of the samples, reported as
    `name`.

    The subsets depend on `seed` alone; a set smaller than `subset_size` is taken whole, and the
    other alike.
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
        self.name, self.num_subsets, self.subset_size, self.seed = (
            name,
            num_subsets,
            subset_size,
            seed,
        )

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.reference, self.stored()
        size = min(self.subset_size, len(real), len(fake))
        subsets = []
        for i in range(self.num_subsets):
            draws = generator(self.seed, i, "kernel distance")
            rows_real, rows_fake = (
                torch.randperm(len(x), generator=draws)[:size].to(x.device) for x in (real, fake)
            )
            subsets.append(cubic_mmd2(real[rows_real], fake[rows_fake]))
        return {self.name: torch.stack(subsets).mean()}
