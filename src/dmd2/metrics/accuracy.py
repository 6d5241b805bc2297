"""Class accuracy: the share of samples that a classifier assigns to the class asked for."""

import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric


class ClassAccuracy(FeatureMetric):
    """Share of samples whose greatest logit is their label's, as "accuracy".

    That of class 3 alone is "3/accuracy".

    `detector` names one whose features are logits [B, num_classes], such as `ClassifierLogits`.
    """

    num_samples: Tensor
    num_correct: Tensor

    reports = ("accuracy",)
    reads_real = False

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Learn the number of classes, the width of the logits [N, num_classes]."""
        # Counts in float64 are exact up to 2^53, so their sum over ranks is too.
        zeros = train.new_zeros(train.shape[1], dtype=torch.float64)
        for state in ("num_samples", "num_correct"):
            self.add_state(state, default=zeros.clone(), dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the logits [B, num_classes] of samples that were asked to be of `labels` [B]."""
        self.num_samples.index_add_(0, labels, torch.ones_like(labels).double())
        self.num_correct.index_add_(0, labels, (features.argmax(1) == labels).double())

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1], of all samples and of each class that has some."""
        right, num = self.num_correct, self.num_samples
        by_class = {f"{i}/accuracy": right[i] / num[i] for i in num.nonzero().flatten().tolist()}
        return {"accuracy": right.sum() / num.sum(), **by_class}
