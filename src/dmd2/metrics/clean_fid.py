"""Inception's features as clean-fid makes them in mode "clean": PIL resizes, not the network
(arXiv:2104.11222).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dmd2.metrics.inception import CLEAN_FID_SHA256, CleanFidInception
from dmd2.metrics.preprocessing import View, picture, scaled

SIZE = 299  # pixels a side that the network takes


class CleanInception(CleanFidInception):
    """The same network on what a `view` shows of each image; of real ones too, whatever size they
    have.
    """

    def __init__(
        self,
        folder: str | Path,
        view: View,
        fetch: bool = True,
        sha256: str | None = CLEAN_FID_SHA256,
    ) -> None:
        super().__init__(folder, fetch, sha256)
        self.view = view

    def features(self, samples: Tensor) -> Tensor:
        return self.of([picture(sample) for sample in samples])

    @torch.no_grad()
    def of(self, images: Sequence[Image.Image]) -> Tensor:
        """Features [B, 2048] of RGB images."""
        x = torch.stack([scaled(self.view(image), SIZE) for image in images])
        x = x.to(next(self.net.parameters()).device)
        return self.net.layers((x - 128) / 128).flatten(1)

    def key(self) -> str | None:
        own = super().key()
        return own and f"{own} {self.view}"
