"""Diversity: how far apart the samples of one condition are."""

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures


class LabelledFeatures(StoredFeatures):
    """Base of metrics that look at the samples of each label by themselves."""

    reads_real = False

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Learn the width D of the features [N, D]; real data are not compared with."""
        self.reference = train.new_empty(0, 1 + train.shape[1])

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Keep the samples' features [B, D], behind their labels [B]."""
        self.features.append(torch.cat([labels[:, None].to(features), features], 1))

    def by_label(self) -> dict[int, Tensor]:
        """The features float64 [N, D] of each label that has two samples or more."""
        # float32 holds the labels exactly up to 2^24.
        labels, x = self.stored().tensor_split([1], dim=1)
        found = {int(label): x[labels[:, 0] == label].double() for label in labels.unique()}
        return {label: part for label, part in found.items() if len(part) > 1}


class ConditionDiversity(LabelledFeatures):
    """Root mean squared distance of two samples of one label, as "diversity"; of 3 "3/diversity".

    Labels count by their number of samples, and those with a single one are left out. Samples of a
    label that are all the same have 0. What the data's own is, the row of real samples says beside
    it: less is a sign of collapse.
    """

    reports = ("diversity",)

    def compute(self) -> dict[str, Tensor]:
        """Distances, of all labels and of each; nothing where no label has two samples."""
        parts = self.by_label()
        if not parts:
            return {}
        # E |a - b|^2 over pairs a, b is twice the trace of the covariance.
        squares = torch.stack([2 * len(part) * part.var(0).sum() for part in parts.values()])
        sizes = squares.new_tensor([len(part) for part in parts.values()])
        own = {f"{i}/diversity": x for i, x in zip(parts, (squares / sizes).sqrt(), strict=True)}
        return {"diversity": (squares.sum() / sizes.sum()).sqrt(), **own}
