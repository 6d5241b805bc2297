"""Split: samples with their labels; and stratified division of a data set into train and test."""

from dataclasses import dataclass

import numpy as np
import torch

from dmd2.randomness import generator


@dataclass(frozen=True)
class Split:
    """Samples as they are stored, and their labels.

    x       uint8 pixels [N, C, H, W], float16 latents [N, C, h, w] or float32 points [N, 2]; an
            array or a memory map.
    labels  int64 [N]: classes, or numbers of captions; zeros where there are none.
    """

    x: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.labels) and self.labels.dtype == np.int64

    def __len__(self) -> int:
        return len(self.labels)


def stratified(labels: np.ndarray, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the train and of the test part, each rising; a function of the labels alone.

    Every class gives its share of the `num_test` rows, to within about one row.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        # No seed of the run: train and test must not change with it.
        draw = generator("split", int(label))
        order = torch.randperm(len(rows), generator=draw).numpy()
        offset = torch.rand((), generator=draw, dtype=torch.float64).item()
        # Each class spreads its rows evenly over [0, 1), so the lowest n of all places hold about
        # the same share of every class. The offset keeps small classes from all coming first.
        place[rows] = (order + offset) / len(rows)
    # Stable, for the split must be the same on every machine, even between equal places.
    order = np.argsort(place, kind="stable")
    return np.sort(order[num_test:]), np.sort(order[:num_test])
