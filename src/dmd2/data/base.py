"""The base class of all data: endless training batches in a stateless order, and two splits to look
at.

A batch on the device is {"real": float32 [B, ...] in model space, "label": int64 [B], "index":
int}, and with pairs also {"pair_noise": float32, "pair_image": float32 in model space,
"pair_label": int64}. Data of captions alone (`dmd2.data.prompts`) have no "real".
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from dmd2.data import pixels
from dmd2.data.dataset import Batches, as_is
from dmd2.data.pairs import PairStore
from dmd2.data.sampler import BatchSampler
from dmd2.data.split import Split
from dmd2.data.worker_signals import ignore_signals
from dmd2.io.files import key_of
from dmd2.randomness import generator


class DataModule(LightningDataModule):
    """Data as images; a subclass gives `load` and `identity`.

    batch_size        Samples a batch on each rank.
    seed              Seed of the order and of the flips.
    num_workers       Processes that gather batches; 0 gathers in this one.
    flip              Whether half of the training images are mirrored left to right.
    pairs             Folder of noise-image pairs (`PairStore`) for the regression loss; None for
                      none.
    pairs_batch_size  Pairs a batch on each rank.

    After `prepare_data()` and `setup()`: `shape` of a sample, e.g. (1, 8, 8); `num_classes`, 0
    where there
    are no labels; `class_names`; the splits `train` and `test`. The whole state is `consumed`, the
    number
    of batches trained on: the training module adds to it (workers run ahead), and batches start
    there.
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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {batch_size}; e.g. data.batch_size=64"
            )
        if (pairs is not None) != (pairs_batch_size > 0):
            raise ValueError(
                f"pairs and pairs_batch_size come together, got {pairs} and {pairs_batch_size}; "
                "e.g. data.pairs=cache/pairs data.pairs_batch_size=32"
            )
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self.num_workers = num_workers
        self.pairs_path, self.pairs_batch_size = pairs, pairs_batch_size
        self.pairs: PairStore | None = None
        self.consumed = 0

    def load(self) -> tuple[Split, Split, list[str]]:
        """The train split, the test split (may be empty) and the names of the classes ([] for
        none).
        """
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What makes this data what it is, as JSON values; not how it is drawn."""
        raise NotImplementedError

    def meaning(self) -> dict[str, Any]:
        """What `train` and `test` hold, as JSON values. Batch size, seed and flips do not enter."""
        return {"kind": type(self).__name__, **self.identity()}

    def fingerprint(self) -> str:
        """Its hash: a cache key."""
        return key_of(self.meaning())

    def to_model(self, x: Tensor) -> Tensor:
        """Model space, float32 in [-1, 1], of stored samples."""
        return pixels.to_model(x)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Stored samples (uint8, rounded and clamped) of x in model space; undoes `to_model`
        exactly.
        """
        return pixels.to_pixels(x)

    def shown(self, x: np.ndarray) -> np.ndarray:
        """Some stored samples as `to_pixels` shows a model's; only of data with "real"."""
        return x

    def class_of(self, labels: Tensor) -> Tensor:
        """The classes that scores read, of labels [B]: the labels themselves, unless these number
        captions.
        """
        return labels

    def provides(self) -> set[str]:
        """What batches hold that means something, of "real", "label" and "pairs"; known after
        `setup()`.
        """
        label = {"label"} if self.num_classes else set()
        return {"real"} | label | ({"pairs"} if self.pairs is not None else set())

    def stored(self) -> dict[str, np.ndarray]:
        """What training batches are cut from, by the name that a batch has it under."""
        return {"real": self.train.x, "label": self.train.labels}

    @property
    def rank(self) -> int:
        """This process's number; 0 where no trainer is attached."""
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def world_size(self) -> int:
        """Number of processes that share a global batch."""
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def on_gpu(self) -> bool:
        """Whether batches go to a GPU: they then wait in pinned memory, from which copies are
        faster.
        """
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def setup(self, stage: str = "fit") -> None:
        """Open the splits and the pairs; raises ValueError where the pairs have another shape."""
        self.train, self.test, self.class_names = self.load()
        self.shape, self.num_classes = tuple(self.train.x.shape[1:]), len(self.class_names)
        if self.pairs_path is not None:
            self.pairs = PairStore(self.pairs_path)
            if self.pairs.shape != self.shape:
                raise ValueError(
                    f"pairs in {self.pairs_path} have shape {self.pairs.shape}, the data "
                    f"{self.shape}; "
                    "generate pairs for this data, or set data.pairs=null"
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches from number `consumed` on; uint8 until they are on the device."""
        order = self._sampler(len(self.train), self.batch_size, "order")
        return DataLoader(
            Batches(self.stored(), self.pairs, self._pair_order()),
            batch_sampler=order,  # type: ignore[arg-type]  # a Draw, which __getitems__ takes
            num_workers=self.num_workers,
            pin_memory=self.on_gpu,
            collate_fn=as_is,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=ignore_signals,
        )

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        """Model space and flips, on the batch's device."""
        if "real" in batch:
            real = self.to_model(batch["real"])
            if self.flip:
                mirrored = self._mirrored(batch["index"], len(real)).to(
                    real.device, non_blocking=True
                )
                real = torch.where(mirrored.view(-1, *[1] * (real.ndim - 1)), real.flip(-1), real)
            batch = batch | {"real": real}
        if self.pairs is not None:
            image = batch["pair_image"]
            image = self.to_model(image) if image.dtype == torch.uint8 else image.float()
            batch |= {"pair_noise": batch["pair_noise"].float(), "pair_image": image}
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["consumed"]

    def _sampler(self, num_samples: int, batch_size: int, stream: str) -> BatchSampler:
        return BatchSampler(
            num_samples, batch_size, self.seed, self.rank, self.world_size, self.consumed, stream
        )

    def _pair_order(self) -> BatchSampler | None:
        if self.pairs is None:
            return None
        return self._sampler(len(self.pairs), self.pairs_batch_size, "pair_order")

    def _mirrored(self, k: int, num_rows: int) -> Tensor:
        """Which rows of batch k are mirrored on this rank, bool [B]: drawn for all ranks, then
        sliced.
        """
        draw = torch.rand(num_rows * self.world_size, generator=generator(self.seed, k, "flip"))
        return draw.chunk(self.world_size)[self.rank] < 0.5
