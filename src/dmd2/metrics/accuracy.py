"""Class accuracy: the share of samples that a classifier assigns to the class asked for."""

import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric


# No reference: samples are compared with the labels asked for, and not with real data.
class ClassAccuracy(FeatureMetric):
    """Share of samples whose greatest logit is their label's, reported as "accuracy".

    `detector` names one whose features are logits [B, num_classes], such as `ClassifierLogits`.
    """

    num_samples: Tensor
    num_correct: Tensor

    reports = ("accuracy",)

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        # Counts in float64 are exact up to 2^53, so their sum over ranks is too.
        for state in ("num_samples", "num_correct"):
            self.add_state(
                state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the logits [B, num_classes] of samples that were asked to be of `labels` [B]."""
        self.num_samples += len(features)
        self.num_correct += (features.argmax(1) == labels).sum()

    def compute(self) -> dict[str, Tensor]:
        """{"accuracy": a share in [0, 1]}."""
        return {"accuracy": self.num_correct / self.num_samples}
