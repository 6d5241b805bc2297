"""Latents of real images with their captions, memory-mapped from a folder that
`dmd2 prepare recipe=latents` wrote.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dmd2.data.dataset import BatchDataset, Joined, batch_loader
from dmd2.data.preparation.bucket_folder import about_of, parts_of, sizes_in
from dmd2.data.preparation.folder import check_if_changed, open_prepared, read_manifest
from dmd2.data.prompts import Captioned
from dmd2.data.sampler import BucketSampler
from dmd2.data.sizes import written
from dmd2.data.split import Split

AT_ONCE = 64  # Latents decoded in one pass; an image of 1024x1024 takes gigabytes on the way.


class Latents(Captioned):
    """Latents float16 [C, h, w]; the label of row i is the number of its caption.

    source  The prepared folder, of one size or of buckets. Its captions must be the first of the
            table `captions`; others may follow, for the generator to draw prompts from.

    The `buckets` are those of the folder, where None takes them. A batch has images of one, and one
    with more images has more batches (`BucketSampler`). The splits `train` and `test` are of the
    base size. Takes the arguments of `Captioned` besides. `prepare_data` raises FileNotFoundError
    without such a folder, and ValueError for latents that another autoencoder than the teacher's
    made, and for other buckets.
    """

    def __init__(self, source: str | Path, **common: Any) -> None:
        super().__init__(**common)
        self.source = Path(source)

    def prepare_data(self) -> None:
        """Check that the latents are there, unaltered, and made by the teacher's autoencoder."""
        if not (parts := parts_of(self.source)):
            raise FileNotFoundError(
                f"there are no prepared latents at {self.source}; type dmd2 prepare recipe=latents "
                f"source=IMAGES out={self.source}"
            )
        super().prepare_data()
        theirs, ours = about_of(self.source).get("autoencoder"), self.codec.identity()
        if theirs is None:
            raise ValueError(f"{self.source} holds prepared images, not latents; type data=images")
        # Latents of another VAE or scale would train without an error, and decode to noise.
        for name, value in ours.items():
            if theirs[name] != value:
                raise ValueError(
                    f"the latents in {self.source} were made with {name} {theirs[name]}, and the "
                    f"teacher's are of {name} {value}; prepare them again with the teacher's VAE, "
                    "or choose another teacher"
                )
        for part in parts:
            check_if_changed(part)

    def load(self) -> tuple[Split, Split, list[str]]:
        """The splits of the base size, and the whole table of captions.

        Raises ValueError where the table does not begin with the folder's captions, and where the
        folder has other buckets, or none of the base size.
        """
        parts = [open_prepared(part) for part in parts_of(self.source)]
        captions = [caption for *_, texts in parts for caption in texts]
        # Labels in the folder are row numbers of its own captions: they must keep their places.
        if captions != self.captions[: len(captions)]:
            raise ValueError(
                f"data.captions do not begin with those of {self.source}; name it first in "
                "captions.source"
            )
        found = sizes_in(self.source)
        if self.buckets and sorted(self.buckets) != sorted(found):
            raise ValueError(
                f"data.buckets are {written(self.buckets)}, and {self.source} was prepared with "
                f"{written(found)}; type data.buckets=null, or prepare it again with recipe.buckets"
            )
        self.buckets, self.shapes = found, [self.codec.shape_at(size) for size in found]
        # Captions of a bucket are numbered behind those of the buckets before it.
        firsts = np.cumsum([0, *(len(texts) for *_, texts in parts)])
        self.splits = [
            Split(train.x, train.labels + first)
            for (train, *_), first in zip(parts, firsts, strict=False)
        ]
        for split, (_, test, _) in zip(self.splits, parts, strict=True):
            if split.x.shape[1:] == self.codec.shape:
                return split, test, self.captions
        raise ValueError(
            f"{self.source} has no latents of the base size, {self.codec.shape}; name the folder "
            "with all buckets: data.source=DIR"
        )

    def stored(self) -> dict[str, Any]:
        """As of `DataModule`, of all buckets one after the other."""
        labels = np.concatenate([split.labels for split in self.splits])
        return {"real": Joined([split.x for split in self.splits]), "label": labels}

    def train_dataloader(self) -> DataLoader[Any]:
        """As of `DataModule`; with buckets each batch is of one, and pairs there are none."""
        if not self.buckets:
            return super().train_dataloader()
        nums = [len(split) for split in self.splits]
        order = BucketSampler(
            nums, self.batch_size, self.seed, self.rank, self.world_size, self.consumed
        )
        dataset = BatchDataset(self.stored(), None, None)
        return batch_loader(dataset, order, self.num_workers, self.on_gpu)

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        """As of `DataModule`; a batch of buckets gets its size."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.buckets:
            return batch
        shape = tuple(batch["real"].shape[1:])
        return batch | {"size": self.buckets[self.shapes.index(shape)], "shape": shape}

    def identity(self) -> dict[str, Any]:
        """The hash of the captions, and the manifests' hashes of the arrays."""
        content = [read_manifest(part)["content"] for part in parts_of(self.source)]
        return super().identity() | {"content": content if len(content) > 1 else content[0]}

    def shown(self, x: np.ndarray) -> np.ndarray:
        """Stored latents decoded to pixels uint8 [B, 3, H, W], on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # np.array copies a block: torch takes no read-only memory map without a warning.
        blocks = (torch.from_numpy(np.array(x[i : i + AT_ONCE])) for i in range(0, len(x), AT_ONCE))
        images = [self.to_pixels(self.to_model(block.to(device))).cpu().numpy() for block in blocks]
        self.offload()
        # An empty split has no block to concatenate.
        return np.concatenate(images) if images else x
