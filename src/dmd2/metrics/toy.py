"""Metrics for toy data of a few dimensions: sliced Wasserstein-2 distance, and modes found."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric, StoredFeatures
from dmd2.randomness import generator


def quantiles(ordered: Tensor, num: int) -> Tensor:
    """Quantiles [..., num] at (i + 1/2) / num of values [..., N] that rise along the last axis.

    Between values they are interpolated; with num = N they are the values.

    >>> quantiles(torch.tensor([0.0, 1.0, 2.0, 3.0]), num=2)
    tensor([0.5000, 2.5000])
    """
    last = ordered.shape[-1] - 1
    # Value j is the quantile (j + 1/2) / N: the place of quantile q among the values is q N - 1/2.
    places = (torch.arange(num, device=ordered.device, dtype=torch.float64) + 0.5) / num * (
        last + 1
    ) - 0.5
    below = places.clamp(0, last).floor().long()
    weight = (places - below).clamp(0, 1).to(ordered.dtype)
    return ordered[..., below].lerp(ordered[..., (below + 1).clamp_max(last)], weight)


class SlicedWasserstein(StoredFeatures):
    """Sliced Wasserstein-2 distance to the train split, along fixed random directions.

    In the data's units, reported as "sliced_wasserstein": the root of the mean over directions of
    the squared W2 distance in one dimension. Two finite sets of the same distribution are not at 0:
    `MetricSuite.floor` says what the test split reaches.
    """

    directions: Tensor
    ordered: Tensor

    reports = ("sliced_wasserstein",)

    def __init__(
        self, detector: str, num_directions: int = 256, seed: int = 0, prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        self.num_directions, self.seed = num_directions, seed
        self.register_buffer("directions", torch.empty(0), persistent=False)
        self.register_buffer("ordered", torch.empty(0), persistent=False)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Sort the train split's features [N, D] along each direction, once for all scores."""
        super().set_reference(train, test)
        draws = generator(self.seed, "sliced wasserstein")
        # Normalised Gaussian vectors are uniform on the sphere.
        directions = torch.randn(
            self.num_directions, train.shape[1], generator=draws, dtype=torch.float64
        )
        self.directions = (directions / directions.norm(dim=1, keepdim=True)).to(train)
        self.ordered = self._along(train)

    def compute(self) -> dict[str, Tensor]:
        """{"sliced_wasserstein": a distance}."""
        real, fake = self.ordered, self._along(self.stored())
        # Both sorted once, so a score costs one sort and no matrix of pairs.
        num = min(real.shape[1], fake.shape[1])
        # In one dimension optimal transport pairs quantiles; here as many as the smaller set has.
        return {
            "sliced_wasserstein": (quantiles(real, num) - quantiles(fake, num))
            .double()
            .square()
            .mean()
            .sqrt()
        }

    def _along(self, x: Tensor) -> Tensor:
        """The features [N, D] projected on each of P directions, sorted: [P, N]."""
        return (self.directions @ x.T).sort(1).values


class ModesFound(FeatureMetric):
    """How many of K known modes are found, and the share of samples that lie on one.

    modes   Centres [K, D] of the data's modes, whose standard deviation is `std`.
    radius  A sample lies on its nearest mode if it is at most `radius` * `std` away. In two
            dimensions 98.9 % of a true mode are within 3 std.
    share   A mode is found if at least `share` / K of all samples lie on it.

    Reports "modes" (a count) and "high_quality" (a share).
    """

    centres: Tensor
    hits: Tensor
    num_samples: Tensor

    reports = ("modes", "high_quality")
    reads_real = False

    def __init__(
        self,
        detector: str,
        modes: Sequence[Sequence[float]],
        std: float,
        radius: float = 3.0,
        share: float = 0.2,
        prefix: str = "",
    ) -> None:
        super().__init__(detector, prefix)
        self.std, self.radius, self.share = std, radius, share
        # The true centres, which are known of synthetic data only.
        self.register_buffer(
            "centres", torch.as_tensor(modes, dtype=torch.float32), persistent=False
        )
        self.add_state(
            "hits", default=torch.zeros(len(modes), dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.add_state(
            "num_samples", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum"
        )

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add samples [B, D]; labels are not read."""
        distance, mode = torch.cdist(features, self.centres).min(1)
        hit = mode[distance <= self.radius * self.std]
        # minlength: a mode without a sample must be counted too.
        self.hits += hit.bincount(minlength=len(self.hits))
        self.num_samples += len(features)

    def compute(self) -> dict[str, Tensor]:
        """{"modes": a count up to K, "high_quality": a share in [0, 1]}."""
        least = self.share * self.num_samples / len(self.hits)
        return {
            "modes": (self.hits >= least).sum(),
            "high_quality": self.hits.sum() / self.num_samples,
        }
