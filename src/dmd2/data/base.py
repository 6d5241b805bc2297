"""DataModule, the base class of every data set: shuffled endless batches, a train and a test split.

A sample has three forms, and a data module translates between them:

    stored       as it lies in the arrays: uint8 pixels, float16 latents or float32 points
    model space  float32, what networks read and write; pixels are in [-1, 1] there
    pixels       uint8 images for people and for metrics; of toy data, the points themselves

A training batch, once it is on the device (its labels stay on the host), is a dict:

    "real"        float32 [B, ...]  samples in model space; absent from data of captions alone;
                                    the images of pairs, if `reals` says so
    "label"       int64 [B]         class, or number of the caption; 0 where there are no labels
    "index"       int               number of the batch
    "size", "shape"  tuples of int  with buckets only: of an image in pixels, of a sample
    "pair_noise"  float32 [P, ...]  with pairs only: N(0, I) noise that the teacher started from
    "pair_image"  float32 [P, ...]  with pairs only: the sample it made of that, in model space
    "pair_label"  int64 [P]         with pairs only: the label that the teacher was given
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from dmd2.data import pixels
from dmd2.data.dataset import BatchDataset, batch_loader
from dmd2.data.flips import flip_rows, rows_to_flip
from dmd2.data.pair_batches import check_pairs, pairs_of
from dmd2.data.pairs import PairStore
from dmd2.data.placement import PlacedData
from dmd2.data.sampler import BatchSampler
from dmd2.data.split import Split
from dmd2.io.files import key_of


class DataModule(PlacedData):
    """A data set, and how it is drawn; a subclass gives `load` and `identity`.

    batch_size        Samples per batch on each rank.
    seed              Seed of the order and of the flips.
    num_workers       Loader processes that gather batches; 0 gathers in the training process.
    flip              Whether each training image is mirrored left to right with probability 1/2.
    pairs             Folder of noise-image pairs (`PairStore`) for the regression loss, or None.
    pairs_batch_size  Pairs per batch on each rank; 0 without pairs.
    reals             What a batch has as "real": samples of the "data", or the images of "pairs",
                      which are the teacher's.

    `prepare_data()` makes the files and `setup()` opens them. Then there are the splits `train` and
    `test`; `shape` of a sample, e.g. (1, 8, 8); `class_names`; and `num_classes`, 0 without labels.

    The whole state is `consumed`, the number of batches trained on: batch k is a function of
    (seed, k), so a resumed run starts the loader at that number. The training module counts it up.

    Raises ValueError for a batch size below 1, for pairs without pairs_batch_size or the reverse,
    for other `reals`, and for such of pairs that are not as many as samples.
    """

    shape: tuple[int, ...]
    num_classes: int
    class_names: list[str]
    train: Split
    test: Split

    def __init__(
        self,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        flip: bool = False,
        pairs: str | Path | None = None,
        pairs_batch_size: int = 0,
        reals: str = "data",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {batch_size}; e.g. data.batch_size=64"
            )
        check_pairs(pairs, pairs_batch_size, reals, batch_size)
        self.batch_size, self.seed, self.flip, self.reals = batch_size, seed, flip, reals
        self.num_workers = num_workers
        self.pairs_path, self.pairs_batch_size = pairs, pairs_batch_size
        self.pairs: PairStore | None = None  # opened by setup(), when they have been made
        self.consumed = 0  # not counted here: loader workers run batches ahead of training

    def load(self) -> tuple[Split, Split, list[str]]:
        """The train split, the test split (may be empty), the class names ([] without labels)."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What decides the contents of the splits, as JSON values: source, options, counts.

        How batches are drawn from them (batch size, seed, flips, workers) does not belong here.
        """
        raise NotImplementedError

    def resume_identity(self) -> dict[str, Any]:
        """What must stay the same to resume a run on this data: `identity` and the class."""
        # Not hashed: values are compared one by one, so that a refusal can name what changed.
        return {"kind": type(self).__name__, **self.identity()}

    def fingerprint(self) -> str:
        """Hash of `resume_identity`, part of the cache keys of teachers, features and scores."""
        return key_of(self.resume_identity())

    def to_model(self, x: Tensor) -> Tensor:
        """Stored samples in model space, float32; pixels come to lie in [-1, 1]."""
        return pixels.to_model(x)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Pixels uint8 [B, C, H, W] of samples in model space, rounded and clamped.

        Where stored samples are pixels, it undoes `to_model` exactly.
        """
        return pixels.to_pixels(x)

    def shown(self, x: np.ndarray) -> np.ndarray:
        """Pixels of stored samples, so that real images compare with generated ones of `to_pixels`.

        Pixels that are stored are returned as they are; latents are decoded. Data without "real"
        has nothing to show.
        """
        return x

    def offload(self) -> None:
        """Take off the device what showing samples has put there: here nothing."""

    def class_of(self, labels: Tensor) -> Tensor:
        """Class of each label [B], for metrics that count classes: here the label itself.

        Where labels number captions, several of them may be of one class.
        """
        return labels

    def names_of_classes(self) -> list[str]:
        """The names of these classes, in the order of their numbers: here those of the labels."""
        return self.class_names

    def provides(self) -> set[str]:
        """Which of "real", "label" and "pairs" batches have to offer; known after `setup()`.

        A loss that needs another one is refused before training.
        """
        # Batches always have the key "label"; without classes it is all zeros and says nothing.
        label = {"label"} if self.num_classes else set()
        return {"real"} | label | ({"pairs"} if self.pairs is not None else set())

    def stored(self) -> dict[str, Any]:
        """The arrays whose rows make training batches, each under its key in a batch."""
        return {"real": self.train.x, "label": self.train.labels}

    def setup(self, stage: str = "fit") -> None:
        """Open the splits and the pairs; raises ValueError for pairs of another shape."""
        self.train, self.test, self.class_names = self.load()
        self.shape, self.num_classes = tuple(self.train.x.shape[1:]), len(self.class_names)
        if self.pairs_path is not None:
            self.pairs = PairStore(self.pairs_path)
            if self.pairs.shape != self.shape:
                raise ValueError(
                    f"pairs in {self.pairs_path} have shape {self.pairs.shape}, the data "
                    f"{self.shape}; generate pairs for this data, or set data.pairs=null"
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches of stored samples on the CPU, from batch `consumed` on."""
        # When Lightning asks for it, `consumed` has been restored from the checkpoint already.
        dataset = BatchDataset(self.stored(), self.pairs, self._pair_order())
        order = self._sampler(len(self.train), self.batch_size, "order")
        return batch_loader(dataset, order, self.num_workers, self.on_gpu)

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        """Bring a batch to model space and flip images; Lightning calls it on the device."""
        # Only here, behind the transfer: stored pixels are a quarter of the bytes of float32, and
        # the conversion costs a GPU next to nothing.
        if "real" in batch:
            real = self.to_model(batch["real"])
            if self.flip:
                k, num_rows = batch["index"], len(real)
                chosen = rows_to_flip(self.seed, k, num_rows, self.rank, self.world_size)
                real = flip_rows(real, chosen)
            batch = batch | {"real": real}
        if self.pairs is not None:
            batch |= pairs_of(batch, self.to_model, self.reals)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The number of batches trained on, for a checkpoint."""
        return {"consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that number from a checkpoint; the next loader starts there."""
        self.consumed = state_dict["consumed"]

    def _sampler(self, num_samples: int, batch_size: int, stream: str) -> BatchSampler:
        return BatchSampler(
            num_samples, batch_size, self.seed, self.rank, self.world_size, self.consumed, stream
        )

    def _pair_order(self) -> BatchSampler | None:
        if self.pairs is None:
            return None
        # A stream of its own: pairs are shuffled independently of the images beside them.
        return self._sampler(len(self.pairs), self.pairs_batch_size, "pair_order")
