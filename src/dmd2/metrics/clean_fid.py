"""Inception features in clean-fid's mode "clean" (Parmar et al. 2022, arXiv:2104.11222).

PIL resizes the images, with antialiasing, and not the network.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dmd2.metrics.inception import CLEAN_FID_SHA256, CleanFidInception
from dmd2.metrics.preprocessing import Preprocessing, picture, scaled

# Pixels a side that Inception-v3 takes.
SIZE = 299


class CleanInception(CleanFidInception):
    """Inception features [B, 2048] after a `preprocessing` of each image.

    Real images go through the same preprocessing, whatever size they have: see `of`. The other
    arguments are those of `CleanFidInception`.
    """

    def __init__(
        self,
        folder: str | Path,
        preprocessing: Preprocessing,
        fetch: bool = True,
        sha256: str | None = CLEAN_FID_SHA256,
    ) -> None:
        super().__init__(folder, fetch, sha256)
        self.preprocessing = preprocessing

    def features(self, samples: Tensor) -> Tensor:
        """Features [B, 2048] of images uint8 [B, 1 or 3, H, W]."""
        # One by one through PIL, on the CPU: slow, but bit for bit what clean-fid does.
        return self.of([picture(sample) for sample in samples])

    @torch.no_grad()
    def of(self, images: Sequence[Image.Image]) -> Tensor:
        """Features [B, 2048] of RGB images."""
        x = torch.stack([scaled(self.preprocessing(image), SIZE) for image in images])
        x = x.to(next(self.net.parameters()).device)
        # `layers` is the network without its own resize, which does not antialias; input [-1, 1).
        features: Tensor = self.net.layers((x - 128) / 128)
        return features.flatten(1)

    def key(self) -> str | None:
        """The network's key and the preprocessing, whose repr has its settings."""
        # None where the weights are unchecked: another file must not find these features.
        own = super().key()
        return own and f"{own} {self.preprocessing}"
