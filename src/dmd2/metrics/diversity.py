"""Diversity: how far apart the samples of one condition are."""

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures


class ConditionDiversity(StoredFeatures):
    """Root mean squared distance of two samples of one label, reported as "diversity".

    Labels count by their number of samples, and those with a single one are left out. Samples of a
    label that are all the same have 0. What the data's own is, the row of real samples says beside
    it: less is a sign of collapse.
    """

    reports = ("diversity",)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Learn the width D of the features [N, D]; real data are not compared with."""
        self.reference = train.new_empty(0, 1 + train.shape[1])

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Keep the samples' features [B, D], behind their labels [B]."""
        self.features.append(torch.cat([labels[:, None].to(features), features], 1))

    def compute(self) -> dict[str, Tensor]:
        """{"diversity": a distance}, or nothing where no label has two samples."""
        # float32 holds the labels exactly up to 2^24.
        labels, x = self.stored().double().tensor_split([1], dim=1)
        parts = [x[labels[:, 0] == label] for label in labels.unique()]
        pairs = [part for part in parts if len(part) > 1]
        if not pairs:
            return {}
        # E |a - b|^2 over pairs a, b is twice the trace of the covariance.
        squares = torch.stack([2 * len(part) * part.var(0).sum() for part in pairs])
        return {"diversity": (squares.sum() / sum(map(len, pairs))).sqrt()}
