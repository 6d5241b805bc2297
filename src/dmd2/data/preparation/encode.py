"""Images to latents that are kept, by an autoencoder: the step of `dmd2 prepare recipe=latents`
behind decoding.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dmd2.data import pixels
from dmd2.data.codec import Codec
from dmd2.randomness import normal_rows


class Encoded:
    """Float16 latents of images, to be kept: a draw from each one's posterior, which depends on its
    row alone.
    """

    dtype: type = np.float16

    def __init__(self, codec: Codec) -> None:
        self.codec, self.shape = codec, codec.shape
        own = int(os.environ.get("LOCAL_RANK", 0)) % max(torch.cuda.device_count(), 1)
        self.device = (
            torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
        )

    def about(self) -> dict[str, Any]:
        return {"autoencoder": self.codec.identity()}

    def __call__(self, images: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        noise = normal_rows(rows, self.shape, 0, "latents")
        x = pixels.to_model(torch.from_numpy(images).to(self.device))
        return self.codec.encode(x, noise.to(self.device)).half().cpu().numpy()
