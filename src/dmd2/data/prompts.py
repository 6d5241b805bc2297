"""Prompts: captions without images, for objectives that read no real data; and Captioned, the base
class of all data of text-to-image teachers.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmd2.data import pixels
from dmd2.data.base import DataModule
from dmd2.data.codec import Codec
from dmd2.data.sizes import size_of
from dmd2.data.split import Split
from dmd2.randomness import seed_of


class Captioned(DataModule):
    """Base class of data in a text-to-image teacher's latent space.

    A label is the number of a caption; pixels are what the autoencoder decodes.

    captions     The table of captions, from which the generator's prompts are drawn.
    autoencoder  The teacher's.
    buckets      Sizes of images, height and width in pixels, of which each batch has one; it then
                 has it as "size", and the latents' as "shape" (C, h, w).

    Takes the arguments of `DataModule` besides; raises ValueError for `flip`, and for buckets that
    are no sizes or have no latents.
    """

    def __init__(
        self,
        captions: Sequence[str],
        autoencoder: Codec,
        buckets: Sequence[Sequence[int]] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if self.flip:
            raise ValueError(
                "what is said of left and right would be wrong in a mirror; set data.flip=false"
            )
        self.captions, self.codec = list(captions), autoencoder
        self.buckets = [size_of(given) for given in buckets or ()]
        self.shapes = [self.codec.shape_at(size) for size in self.buckets]

    def prepare_data(self) -> None:
        """Raise FileNotFoundError without the autoencoder's files, before hours are spent."""
        self.codec.require()

    def identity(self) -> dict[str, Any]:
        """The hash of all captions in their order."""
        # A hash, since tables of captions have millions of rows.
        return {"captions": hashlib.sha256(json.dumps(self.captions).encode()).hexdigest()}

    def to_model(self, x: Tensor) -> Tensor:
        """Stored latents in float32; the teacher's scaling factor is in them already."""
        return x.float()

    @torch.no_grad()  # pixels are only looked at, and the decoder's activations are large
    def to_pixels(self, x: Tensor) -> Tensor:
        """Decoded latents as uint8 [B, 3, H, W], rounded and clamped."""
        return pixels.to_pixels(self.codec.decode(x))

    def offload(self) -> None:
        """Send the autoencoder back to the host."""
        self.codec.offload()


class Prompts(Captioned):
    """Captions alone: a batch is {"label": int64 [B], "index": int}, and pairs if there are any.

    Each of the `buckets` is as likely; None is the autoencoder's size alone. Takes the arguments of
    `Captioned`.
    """

    def load(self) -> tuple[Split, Split, list[str]]:
        """A train split of all captions with placeholders for samples, an empty one, the table."""
        # The base class reads shape and length off a split. Broadcasting one zero gives both and
        # takes no memory; no batch holds it, see `stored`.
        nothing = np.float16(0)
        splits = (
            Split(
                np.broadcast_to(nothing, (num, *self.codec.shape)), np.arange(num, dtype=np.int64)
            )
            for num in (len(self.captions), 0)
        )
        return (*splits, self.captions)  # type: ignore[return-value]

    def stored(self) -> dict[str, Any]:
        """The labels alone."""
        return {"label": self.train.labels}

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        """As of `DataModule`; a batch of buckets gets its size, the same on all ranks."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.buckets:
            return batch
        # A function of the batch's number, as all that is drawn: the seed is random, being a hash.
        i = seed_of(self.seed, batch["index"], "bucket") % len(self.buckets)
        return batch | {"size": self.buckets[i], "shape": self.shapes[i]}

    def provides(self) -> set[str]:
        """As of `DataModule`, without the data's "real"."""
        return super().provides() - ({"real"} if self.reals == "data" else set())
