"""Real images that samples are scored against and nobody trains on: statistics of a folder's
features, made once.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dmd2.data.preparation.archives import identity, members
from dmd2.data.preparation.layout import is_image
from dmd2.io.arrays import read_arrays
from dmd2.io.files import key_of, locked, write_bytes
from dmd2.metrics.clean_fid import CleanInception
from dmd2.metrics.frechet import moments

AT_ONCE = 50


class RealImages:
    """All images of a `source`, a folder or an archive; or an .npz with `mu` and `sigma` of their
    features.

    Statistics are kept in the folder `cache`, as such an .npz, under what names the source and the
    detector. Raises
    FileNotFoundError, with `hint`, where there is no source.
    """

    def __init__(self, source: str | Path, cache: str | Path, hint: str) -> None:
        self.source, self.cache = Path(source), Path(cache)
        if not self.source.exists():
            raise FileNotFoundError(f"no real images at {self.source}; {hint}")

    def moments(self, detector: CleanInception) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of their features, float64, on the CPU."""
        if self.source.suffix == ".npz":
            return _read(self.source)
        if (own := detector.key()) is None:  # nothing to keep them under
            return moments(self._features(detector))
        path = self.cache / f"{key_of(identity(self.source), own)}.npz"
        with locked(path):
            if not path.exists():
                mu, sigma = moments(self._features(detector))
                file = io.BytesIO()
                np.savez(file, mu=mu.numpy(), sigma=sigma.numpy())
                write_bytes(path, file.getvalue())
        return _read(path)

    def _features(self, detector: CleanInception) -> Tensor:
        found = torch.cat([detector.of(images).cpu() for images in self._batches()])
        if len(found) < 2:
            raise ValueError(f"{self.source} holds {len(found)} images, too few for statistics")
        print(f"statistics of {len(found)} real images of {self.source}, once")
        return found

    def _batches(self) -> Iterator[list[Image.Image]]:
        images = list[Image.Image]()
        for member in members(self.source):
            if is_image(member.name):
                images.append(Image.open(io.BytesIO(member.read())).convert("RGB"))
            if len(images) == AT_ONCE:
                yield images
                images = []
        if images:
            yield images


def _read(path: Path) -> tuple[Tensor, Tensor]:
    mu, sigma = read_arrays(path, "mu", "sigma")
    return torch.from_numpy(mu), torch.from_numpy(sigma)
