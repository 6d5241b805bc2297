"""Latents of real images with their captions, as `dmd2 prepare recipe=latents` leaves them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmd2.data.preparation.folder import check_if_changed, is_prepared, open_prepared, read_manifest
from dmd2.data.prompts import Captioned
from dmd2.data.split import Split

AT_ONCE = 64


class Latents(Captioned):
    """Latents float16 [C, h, w], memory-mapped; row i's label is the number of its caption.

    source  The prepared folder; its captions must be the first of the table, and others may follow
            for the
            generator to draw from.

    Takes the arguments of `Captioned` besides. Raises FileNotFoundError where there is no such
    folder and
    ValueError where its latents are not the teacher's.
    """

    def __init__(self, source: str | Path, **common: Any) -> None:
        super().__init__(**common)
        self.source = Path(source)

    def prepare_data(self) -> None:
        """See that the latents are there, nobody altered them, and they are of the teacher's
        kind.
        """
        if not is_prepared(self.source):
            raise FileNotFoundError(
                f"there are no prepared latents at {self.source}; type dmd2 prepare recipe=latents "
                f"source=IMAGES out={self.source}"
            )
        super().prepare_data()
        theirs, ours = read_manifest(self.source).get("autoencoder"), self.codec.identity()
        if theirs is None:
            raise ValueError(f"{self.source} holds prepared images, not latents; type data=images")
        for name, value in ours.items():
            if theirs[name] != value:
                raise ValueError(
                    f"the latents in {self.source} were made with {name} {theirs[name]}, and the "
                    "teacher's are of "
                    f"{name} {value}; prepare them again with the teacher's VAE, or choose "
                    "another teacher"
                )
        check_if_changed(self.source)

    def load(self) -> tuple[Split, Split, list[str]]:
        train, test, captions = open_prepared(self.source)
        if captions != self.captions[: len(captions)]:
            raise ValueError(
                f"data.captions do not begin with those of {self.source}; name it first in "
                "captions.source"
            )
        return train, test, self.captions

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"content": read_manifest(self.source)["content"]}

    def shown(self, x: np.ndarray) -> np.ndarray:
        """Decoded, on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        blocks = (torch.from_numpy(np.array(x[i : i + AT_ONCE])) for i in range(0, len(x), AT_ONCE))
        images = [self.to_pixels(self.to_model(block.to(device))).cpu().numpy() for block in blocks]
        return np.concatenate(images) if images else x
