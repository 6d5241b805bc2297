"""Captions alone, for objectives that read no real images: distribution matching, with pairs or
without.
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
from dmd2.data.split import Split


class Captioned(DataModule):
    """Data of a text teacher, in its own space: a label is the number of a caption, pixels are what
    `codec` decodes.

    captions     The table.
    autoencoder  The teacher's.

    Takes the arguments of `DataModule` besides.
    """

    def __init__(self, captions: Sequence[str], autoencoder: Codec, **common: Any) -> None:
        super().__init__(**common)
        if self.flip:
            raise ValueError(
                "what is said of left and right would be wrong in a mirror; set data.flip=false"
            )
        self.captions, self.codec = list(captions), autoencoder

    def prepare_data(self) -> None:
        """See that pictures can be made, before hours are spent."""
        self.codec.require()

    def identity(self) -> dict[str, Any]:
        return {"captions": hashlib.sha256(json.dumps(self.captions).encode()).hexdigest()}

    def to_model(self, x: Tensor) -> Tensor:
        """Stored latents in float32."""
        return x.float()

    @torch.no_grad()
    def to_pixels(self, x: Tensor) -> Tensor:
        """Decoded, rounded and clamped."""
        return pixels.to_pixels(self.codec.decode(x))


class Prompts(Captioned):
    """No samples at all: a batch is {"label": int64 [B], "index": int}, and pairs where there are
    any.
    """

    def load(self) -> tuple[Split, Split, list[str]]:
        nothing = np.float16(0)  # of the right shape, in no memory, and in no batch
        splits = (
            Split(
                np.broadcast_to(nothing, (num, *self.codec.shape)), np.arange(num, dtype=np.int64)
            )
            for num in (len(self.captions), 0)
        )
        return (*splits, self.captions)  # type: ignore[return-value]

    def stored(self) -> dict[str, np.ndarray]:
        return {"label": self.train.labels}

    def provides(self) -> set[str]:
        return super().provides() - {"real"}
