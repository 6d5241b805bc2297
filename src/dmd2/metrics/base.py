"""What every metric here shares: it names a detector, knows real features, and collects those of
samples.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class FeatureMetric(Metric):
    """A torchmetrics Metric over features.

    `set_reference` once with real features, `update` with each batch of samples' features, then
    `compute`.
    `detector` names the features it reads; `prefix` is put before the names that it reports.
    """

    full_state_update = False  # states are sums or lists: halves merge into the whole

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(
            compute_with_cache=False
        )  # a rank that had no new samples must sync all the same
        self.detector = detector
        self.prefix = prefix

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take the features [N, D] of the real train and test splits; nothing by default."""

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the features [B, D] of samples that were asked to be of classes `labels` [B]."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Name to value, over all samples of all ranks since `reset`."""
        raise NotImplementedError

    def _apply(self, fn: Any, exclude_state: Any = "") -> Any:
        """Move to another device, but never to another dtype: sums and references stay float64."""
        return super()._apply(lambda x: x.to(fn(x.new_empty(0)).device), exclude_state)


class StoredFeatures(FeatureMetric):
    """A metric that needs all features at once: the train split's `reference` and the samples'
    `stored()`.

    Of 50,000 samples and Inception that is 400 MB on each rank, and as much of the train split.
    """

    reference: Tensor
    features: list[Tensor]

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.register_buffer("reference", torch.empty(0), persistent=False)
        self.add_state("features", default=[], dist_reduce_fx="cat")

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Keep the train split's features [N, D]."""
        self.reference = train

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Keep the samples' features [B, D]."""
        self.features.append(features)

    def stored(self) -> Tensor:
        """The features [N, D] of all samples so far, in an order that depends on them alone and not
        on the ranks.
        """
        x = dim_zero_cat(self.features)
        return x[x.double().sum(1).argsort()]

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gather from all ranks; one that had no samples brings none of the right width."""
        if not self.features:
            self.features = [self.reference[:0]]
        super()._sync_dist(*args, **kwargs)
