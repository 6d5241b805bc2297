"""A split: images (or points) with their labels; and how a set without a test part is split in
two.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dmd2.randomness import generator


@dataclass(frozen=True)
class Split:
    """Samples and their classes.

    x: uint8 pixels [N, C, H, W] or float32 points [N, 2]; an array or a memmap.
    labels: int64 [N]; zeros where there are no classes.
    """

    x: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.labels) and self.labels.dtype == np.int64

    def __len__(self) -> int:
        return len(self.labels)


def stratified(labels: np.ndarray, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the train and of the test part, each rising; the same for the same labels,
    always.

    Every class gives its share of the `num_test` rows, to within about one row.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        draw = generator("split", int(label))
        order = torch.randperm(len(rows), generator=draw).numpy()
        offset = torch.rand((), generator=draw, dtype=torch.float64).item()
        place[rows] = (order + offset) / len(rows)
    order = np.argsort(place, kind="stable")
    return np.sort(order[num_test:]), np.sort(order[:num_test])
