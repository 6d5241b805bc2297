"""Scikit-learn's handwritten digits: 1,797 real 8x8 images, with no download."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from dmd2.data.base import DataModule
from dmd2.data.split import Split, stratified
from dmd2.randomness import generator

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
        return (
            Split(x[train], labels[train]),
            Split(x[test], labels[test]),
            [str(i) for i in range(10)],
        )

    def identity(self) -> dict[str, Any]:
        return {"num_test": NUM_TEST}


class TextDigits(Digits):
    """The same images with captions: a label is the number of a caption, and caption i is of the
    digit i % 10.

    captions  The table (`dmd2.data.captions.filled`). Each image has one caption of its digit,
              always the same.
    """

    def __init__(self, captions: Sequence[str], **common: Any) -> None:
        super().__init__(**common)
        if not captions or len(captions) % 10:
            raise ValueError(f"captions must be of ten digits in turn, got {len(captions)} of them")
        self.captions = list(captions)

    def load(self) -> tuple[Split, Split, list[str]]:
        train, test, _ = super().load()
        return self._captioned(train, "train"), self._captioned(test, "test"), self.captions

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"captions": self.captions}

    def class_of(self, labels: Tensor) -> Tensor:
        return labels % 10

    def _captioned(self, split: Split, name: str) -> Split:
        draw = generator("caption", name)
        phrasing = torch.randint(len(self.captions) // 10, (len(split),), generator=draw).numpy()
        return Split(split.x, 10 * phrasing + split.labels)
