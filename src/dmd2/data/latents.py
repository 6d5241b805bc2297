"""Latents of real images with their captions, memory-mapped from a folder that
`dmd2 prepare recipe=latents` wrote.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmd2.data.preparation.folder import check_if_changed, is_prepared, open_prepared, read_manifest
from dmd2.data.prompts import Captioned
from dmd2.data.split import Split

AT_ONCE = 64  # Latents decoded in one pass; an image of 1024x1024 takes gigabytes on the way.


class Latents(Captioned):
    """Latents float16 [C, h, w]; the label of row i is the number of its caption.

    source  The prepared folder. Its captions must be the first of the table `captions`; others may
            follow, for the generator to draw prompts from.

    Takes the arguments of `Captioned` besides. `prepare_data` raises FileNotFoundError without such
    a folder, and ValueError for latents that another autoencoder than the teacher's made.
    """

    def __init__(self, source: str | Path, **common: Any) -> None:
        super().__init__(**common)
        self.source = Path(source)

    def prepare_data(self) -> None:
        """Check that the latents are there, unaltered, and made by the teacher's autoencoder."""
        if not is_prepared(self.source):
            raise FileNotFoundError(
                f"there are no prepared latents at {self.source}; type dmd2 prepare recipe=latents "
                f"source=IMAGES out={self.source}"
            )
        super().prepare_data()
        theirs, ours = read_manifest(self.source).get("autoencoder"), self.codec.identity()
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
        check_if_changed(self.source)

    def load(self) -> tuple[Split, Split, list[str]]:
        """The splits of the folder, and the whole table of captions.

        Raises ValueError where the table does not begin with the folder's captions.
        """
        train, test, captions = open_prepared(self.source)
        # Labels in the folder are row numbers of its own captions: they must keep their places.
        if captions != self.captions[: len(captions)]:
            raise ValueError(
                f"data.captions do not begin with those of {self.source}; name it first in "
                "captions.source"
            )
        return train, test, self.captions

    def identity(self) -> dict[str, Any]:
        """The hash of the captions, and the manifest's hash of the arrays."""
        return super().identity() | {"content": read_manifest(self.source)["content"]}

    def shown(self, x: np.ndarray) -> np.ndarray:
        """Stored latents decoded to pixels uint8 [B, 3, H, W], on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # np.array copies a block: torch takes no read-only memory map without a warning.
        blocks = (torch.from_numpy(np.array(x[i : i + AT_ONCE])) for i in range(0, len(x), AT_ONCE))
        images = [self.to_pixels(self.to_model(block.to(device))).cpu().numpy() for block in blocks]
        self.offload()
        # An empty split has no block to concatenate.
        return np.concatenate(images) if images else x
