"""Precision and recall (Kynkäänniemi et al. 2019, Eq. 1, 2), and nearest training neighbours."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric, StoredFeatures
from dmd2.metrics.exact_sums import step_for

# Of a block of distances: 256 MiB in float64.
MAX_ENTRIES = 2**25


def distance_blocks(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances [rows, M] from x [N, D] to y [M, D], in blocks that bound memory."""
    # cdist multiplies matrices, |a|^2 + |b|^2 - 2 a . b: in float32 close neighbours would be lost.
    y = y.double()
    for rows in x.split(max(1, MAX_ENTRIES // len(y))):
        yield torch.cdist(rows.double(), y)


def neighbour_radii(x: Tensor, k: int) -> Tensor:
    """Distance [N] from each of x [N, D] to its k-th neighbour among the others."""
    # k + 1: the nearest in its own set is the point itself.
    return torch.cat([block.kthvalue(k + 1).values for block in distance_blocks(x, x)])


def nearest_distance(x: Tensor, y: Tensor) -> Tensor:
    """Distance [N] from each of x [N, D] to the nearest of y [M, D]."""
    # Block by block, so that the N x M matrix never exists.
    return torch.cat([block.amin(1) for block in distance_blocks(x, y)])


def share_inside(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Share [] of x [N, D] inside at least one ball around `centres` [M, D], `radii` [M]."""
    # Kynkäänniemi et al. 2019, Eq. 1: f(x) = 1 if |x - c| <= radius(c) for some centre c.
    inside = torch.cat([(block <= radii).any(1) for block in distance_blocks(x, centres)])
    return inside.double().mean()


class PrecisionRecall(StoredFeatures):
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991), Eq. 1 and 2.

    A set's manifold is the union of balls that reach from each point to its `k`-th neighbour.
    "precision" is the share of samples on the train split's manifold, "recall" the share of the
    train split on the samples' manifold. Both depend on the number of samples: compare at equal
    numbers.
    """

    radii: Tensor

    reports = ("precision", "recall")

    def __init__(self, detector: str, k: int = 3, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.k = k
        self.register_buffer("radii", torch.empty(0), persistent=False)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Keep the train split's features [N, D] and the radii of its manifold."""
        super().set_reference(train, test)
        self.radii = neighbour_radii(train, self.k)

    def compute(self) -> dict[str, Tensor]:
        """{"precision", "recall"}, shares in [0, 1]; raises ValueError for k samples or fewer."""
        real, fake = self.reference, self.stored()
        if len(fake) <= self.k:
            raise ValueError(
                f"precision and recall with k={self.k} need more than {len(fake)} samples"
            )
        # Kynkäänniemi et al. 2019, Eq. 2: the mean of f over samples, and over real data.
        return {
            "precision": share_inside(fake, real, self.radii),
            "recall": share_inside(real, fake, neighbour_radii(fake, self.k)),
        }


class NearestTrain(FeatureMetric):
    """Memorisation: the distance to the nearest training sample, and the share of near copies.

    "nearest_train" is the mean distance. "near_copies" is the share of samples that are nearer to a
    training sample than 95 % of held-out real samples are: 0.05 for a perfect generator.
    """

    train_features: Tensor
    threshold: Tensor
    num_samples: Tensor
    total: Tensor
    num_near: Tensor

    reports = ("nearest_train", "near_copies")

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.register_buffer("train_features", torch.empty(0), persistent=False)
        self.register_buffer("threshold", torch.empty(0), persistent=False)
        for state in ("num_samples", "total", "num_near"):
            # Integers: the sum of distances is counted in steps, and no order changes it.
            self.add_state(state, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Keep the train split's features [N, D]; the threshold is of the test split's.

        Raises ValueError where the test split is empty.
        """
        self.train_features = train
        if len(test) == 0:
            raise ValueError(
                "near_copies needs held-out real samples, and there are none; e.g. "
                "data.test_fraction=0.1"
            )
        # The 5th percentile of held-out samples' distances: they are no copies, yet near.
        self.threshold = nearest_distance(test, train).quantile(0.05)
        # No products are summed here, so that a value may have more bits than in a covariance.
        self.step = step_for(float(train.std(0, correction=0).norm()), bits=34)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the features [B, D] of samples; labels are not read."""
        distance = nearest_distance(features, self.train_features)
        self.num_samples += len(distance)
        self.total += (distance / self.step).round().long().sum()
        self.num_near += (distance < self.threshold).sum()

    def compute(self) -> dict[str, Tensor]:
        """{"nearest_train": a distance, "near_copies": a share in [0, 1]}."""
        return {
            "nearest_train": self.step * self.total.double() / self.num_samples,
            "near_copies": self.num_near.double() / self.num_samples,
        }
