"""Base classes of the metrics, which read features of samples, and most of real data, too."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

# Steps in 1. Sums of whole steps are exact in int64, up to 2^23 samples of the greatest score 1.
STEPS = 2**40


class FeatureMetric(Metric):
    """A torchmetrics Metric over features.

    detector  The name, in the suite, of the detector whose features it reads.
    prefix    Put before the names that it reports.

    Call `set_reference` once with real features, `update` with the features of each batch of
    samples, then `compute`.
    """

    reports: tuple[str, ...] = ()
    """The names that `compute` may give; empty where that is not known."""
    reads_real = True
    """Whether it compares with real data. One that does not gets one row in `set_reference`, for
    its width."""
    # Every state is a sum or a list, so two parts of the samples merge without the reference.
    full_state_update = False

    def __init__(self, detector: str, prefix: str = "") -> None:
        # Without the cache a rank that had no new samples still joins the others' all-reduce.
        super().__init__(compute_with_cache=False)
        self.detector = detector
        self.prefix = prefix

    def set_labels(self, train: Tensor) -> None:
        """Take the labels [N] of the real train split, before its features; nothing by default."""

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take the features [N, D] of the real train and test splits; nothing by default."""

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the features [B, D] of samples that were asked to be of classes `labels` [B]."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Name to value, over all samples of all ranks since `reset`.

        Where a class's own value is known, that of class 3 is called "3/NAME".
        """
        raise NotImplementedError

    def _apply(self, fn: Any, exclude_state: Any = "") -> Any:
        """Move to another device, but never to another dtype."""
        # Sums and references stay float64, whatever precision the trainer moves its modules to.
        return super()._apply(lambda x: x.to(fn(x.new_empty(0)).device), exclude_state)


class StoredFeatures(FeatureMetric):
    """Base of metrics that need all features at once: `reference` and the samples' `stored()`.

    For 50,000 samples and Inception that is 400 MB on each rank, and as much for the train split.
    """

    reference: Tensor
    features: list[Tensor]

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        # Not persistent: real features belong in no checkpoint.
        self.register_buffer("reference", torch.empty(0), persistent=False)
        self.add_state("features", default=[], dist_reduce_fx="cat")

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Keep the train split's features [N, D]."""
        self.reference = train

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Keep the samples' features [B, D]."""
        # On their device: they are gathered from there, and compared there.
        self.features.append(features)

    def stored(self) -> Tensor:
        """The features [N, D] of all samples so far, in an order that no division changes."""
        # Ranks gather in rank order. Sorted, random subsets are the same for any number of ranks.
        x: Tensor = dim_zero_cat(self.features)
        return x[x.double().sum(1).argsort()]

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gather from all ranks; one without samples contributes an empty tensor of their width."""
        # torchmetrics would send an empty vector, which does not concatenate with rows [N, D].
        if not self.features:
            self.features = [self.reference[:0]]
        super()._sync_dist(*args, **kwargs)


class MeanScore(FeatureMetric):
    """Base of scores that every sample has by itself: their mean, times `scale`."""

    total: Tensor
    num_samples: Tensor

    reads_real = False
    scale = 1.0

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        for state in ("total", "num_samples"):
            self.add_state(state, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """The scores [B] of features [B, ...] of samples that were asked for by `labels` [B]."""
        raise NotImplementedError

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the scores of features [B, ...] of samples that were asked for by `labels` [B]."""
        # Rounded to whole steps, so that the sum is the same in any order of the samples.
        self.total += (self.scores(features, labels).double() * STEPS).round().long().sum()
        self.num_samples += len(features)

    def compute(self) -> dict[str, Tensor]:
        """The mean score, under the one name that it reports."""
        return {self.reports[0]: self.scale * self.total.double() / STEPS / self.num_samples}
