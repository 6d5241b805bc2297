"""Scikit-learn's handwritten digits: 1,797 real 8x8 images, with no download; with captions; and in
another style.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dmd2.data.base import DataModule
from dmd2.data.split import Split, stratified
from dmd2.randomness import generator

NUM_TEST = 450  # a quarter of the set


class Digits(DataModule):
    """Grey digits [1, 8, 8] of ten classes; 1,347 to train on, 450 to test, always the same.

    Takes the arguments of `DataModule` and no others.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def load(self) -> tuple[Split, Split, list[str]]:
        """Both splits, and the names "0" to "9"."""
        images, labels = load_digits(return_X_y=True)
        # The set has 17 grey levels, 0..16: spread over a byte, so that black and white are -1 and
        # 1 in model space.
        x = np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
        train, test = stratified(labels, NUM_TEST)
        labels = labels.astype(np.int64)
        return (
            Split(x[train], labels[train]),
            Split(x[test], labels[test]),
            [str(i) for i in range(10)],
        )

    def identity(self) -> dict[str, Any]:
        """The size of the test split; all else is fixed."""
        return {"num_test": NUM_TEST}


class TextDigits(Digits):
    """The same images with captions: a label is a caption's number, caption i is of digit i % 10.

    captions  The table (`dmd2.data.captions.fill_phrasings`). Each image has one caption of its
              digit, always the same.

    Takes the arguments of `DataModule` besides; raises ValueError where the captions are no
    multiple of ten.
    """

    def __init__(self, captions: Sequence[str], **common: Any) -> None:
        super().__init__(**common)
        if not captions or len(captions) % 10:
            raise ValueError(f"captions must be of ten digits in turn, got {len(captions)} of them")
        self.captions = list(captions)

    def load(self) -> tuple[Split, Split, list[str]]:
        """Both splits with captions as labels, and the table."""
        train, test, _ = super().load()
        return self._captioned(train, "train"), self._captioned(test, "test"), self.captions

    def identity(self) -> dict[str, Any]:
        """As of `Digits`, and the captions."""
        return super().identity() | {"captions": self.captions}

    def class_of(self, labels: Tensor) -> Tensor:
        """The digit of each caption number [B]."""
        return labels % 10

    def names_of_classes(self) -> list[str]:
        """The digits."""
        return [str(i) for i in range(10)]

    def _captioned(self, split: Split, name: str) -> Split:
        # No seed of the run: an image keeps its caption, as in a data set that is read from disk.
        draw = generator("caption", name)
        phrasing = torch.randint(len(self.captions) // 10, (len(split),), generator=draw).numpy()
        # Phrasing p of digit d is caption 10 p + d.
        return Split(split.x, 10 * phrasing + split.labels)


class SlantedDigits(TextDigits):
    """The captioned images written aslant: a style, of which there may be few images.

    shear       Pixels by which a row lies to the right of the row below it.
    num_images  Training images, each digit its share of them; None takes all 1,347.

    Takes the arguments of `TextDigits` besides; raises ValueError where there are not as many.
    """

    def __init__(self, shear: float, num_images: int | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.shear, self.num_images = shear, num_images

    def load(self) -> tuple[Split, Split, list[str]]:
        """Both splits with captions as labels, and the table."""
        train, test, captions = super().load()
        if self.num_images is not None:
            if not 1 <= self.num_images <= len(train):
                raise ValueError(
                    f"there are {len(train)} training images, got data.num_images={self.num_images}"
                )
            _, chosen = stratified(train.labels % 10, self.num_images)
            train = Split(train.x[chosen], train.labels[chosen])
        return self._slanted(train), self._slanted(test), captions

    def identity(self) -> dict[str, Any]:
        """As of `TextDigits`, the shear and the number of images."""
        return super().identity() | {"shear": self.shear, "num_images": self.num_images}

    def _slanted(self, split: Split) -> Split:
        return Split(slanted(split.x, self.shear), split.labels)


def slanted(x: np.ndarray, shear: float) -> np.ndarray:
    """Square images uint8 [N, 1, S, S] with each row `shear` pixels to the right of the one below,
    about the middle; between pixels it is linear, and what comes in from outside is black.
    """
    # Where each pixel comes from: its row stays, and a row above the middle reads further left.
    source = torch.tensor([[1.0, shear, 0.0], [0.0, 1.0, 0.0]]).expand(len(x), 2, 3)
    pixels = torch.from_numpy(x).float()
    grid = affine_grid(source, list(pixels.shape), align_corners=True)
    return grid_sample(pixels, grid, align_corners=True).round().byte().numpy()
