"""Class accuracy: how many samples a classifier assigns to the class that was asked for."""

import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric


class ClassAccuracy(FeatureMetric):
    """Share of samples whose greatest logit is their label's; reads a detector such as
    `ClassifierLogits`.
    """

    num_samples: Tensor
    num_correct: Tensor

    def __init__(self, detector: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        for state in ("num_samples", "num_correct"):
            self.add_state(
                state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, features: Tensor, labels: Tensor) -> None:
        self.num_samples += len(features)
        self.num_correct += (features.argmax(1) == labels).sum()

    def compute(self) -> dict[str, Tensor]:
        return {"accuracy": self.num_correct / self.num_samples}
