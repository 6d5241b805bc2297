"""Scikit-learn's handwritten digits: 1,797 real 8x8 images, with no download."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from dmd2.data.base import DataModule
from dmd2.data.split import Split, stratified

NUM_TEST = 450


class Digits(DataModule):
    """Grey digits [1, 8, 8] of ten classes; 1,347 to train on, 450 to test, always the same.

    Takes the arguments of `DataModule` and no others.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def load(self) -> tuple[Split, Split, list[str]]:
        images, labels = load_digits(return_X_y=True)
        # The sixteen steps of ink, 0..16, spread over a byte.
        x = np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
        train, test = stratified(labels, NUM_TEST)
        labels = labels.astype(np.int64)
        return Split(x[train], labels[train]), Split(x[test], labels[test]), [str(i) for i in range(10)]

    def identity(self) -> dict[str, Any]:
        return {"num_test": NUM_TEST}
