"""Real data that samples are scored against: the data's own splits, or statistics of a folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dmd2.data.base import DataModule
from dmd2.data.preparation.archives import identity, members
from dmd2.data.preparation.picture import is_image, open_picture
from dmd2.data.split import Split
from dmd2.io.arrays import read_arrays
from dmd2.io.files import key_of
from dmd2.io.hashed_tensors import cached
from dmd2.io.progress import progress_bar
from dmd2.metrics.clean_fid import CleanInception
from dmd2.metrics.frechet import moments
from dmd2.metrics.suite import MetricSuite

BATCH_SIZE = 50
"""Images of a folder that go through a detector at once."""


class TrainSplit:
    """The train split as the reference, with the test split as what a perfect generator gets.

    num  Samples of each split, evenly spaced; None takes all.
    """

    def __init__(self, data: DataModule, num: int | None) -> None:
        self.data, self.num = data, num

    def fit(self, suite: MetricSuite, device: torch.device) -> None:
        """Fit a suite to both splits; raises ValueError where the data has no real samples."""
        if "real" not in self.data.provides():
            raise ValueError(
                "captions alone show no images to score against; type callbacks.evaluation=null"
            )
        train, test = self._samples(self.data.train), self._samples(self.data.test)
        suite.fit(*train, *test, device, f"{self.data.fingerprint()} {self.num}")

    def _samples(self, split: Split) -> tuple[np.ndarray, Tensor]:
        num = min(len(split), self.num or len(split))
        # Evenly spaced, since files come class by class.
        rows = np.linspace(0, len(split) - 1, num).astype(int)
        # All of a split stays the memory map that it is; indexing it would read it whole.
        x = self.data.shown(split.x if num == len(split) else split.x[rows])
        return x, self.data.class_of(torch.from_numpy(split.labels[rows]))


class FolderStatistics:
    """Real images that nobody trains on, by the name of the detector that sees them."""

    data = None

    def __init__(self, images: Mapping[str, "RealImages"]) -> None:
        self.images = images

    def fit(self, suite: MetricSuite, device: torch.device) -> None:
        """Give a suite mean and covariance of each detector's features of the images."""
        suite.to(device)
        for name, images in self.images.items():
            if name in suite.detectors:  # else no metric reads it
                mu, sigma = images.moments(suite.detectors[name])  # type: ignore[arg-type]
                suite.set_moments(name, mu, sigma)


class RealImages:
    """All images of a `source`: a folder, an archive, or an .npz of statistics, `mu` and `sigma`.

    Statistics are kept in the folder `cache`, under what names the source and the detector.
    Raises FileNotFoundError, with `hint`, where there is no source.
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
        path = self.cache / f"{key_of(identity(self.source), own)}.safetensors"
        found = cached(path, lambda: self._moments(detector))
        return found["mu"], found["sigma"]

    def _moments(self, detector: CleanInception) -> dict[str, Tensor]:
        return dict(zip(("mu", "sigma"), moments(self._features(detector)), strict=True))

    def _features(self, detector: CleanInception) -> Tensor:
        # How many there are is known at the end.
        batches = progress_bar(f"features of {self.source.name}", None, iterable=self._batches())
        found = torch.cat([detector.of(images).cpu() for images in batches])
        if len(found) < 2:
            raise ValueError(f"{self.source} holds {len(found)} images, too few for statistics")
        print(f"statistics of {len(found)} real images of {self.source}, once")
        return found

    def _batches(self) -> Iterator[list[Image.Image]]:
        images = list[Image.Image]()
        for member in members(self.source):
            if is_image(member.name):
                # Grey, palette and alpha become colour, as clean-fid reads files.
                try:
                    images.append(open_picture(member.read()).convert("RGB"))
                except Exception as error:  # PIL raises nearly anything at damaged bytes
                    raise ValueError(
                        f"cannot read the image {member.name} in {self.source} ({error}); mend or "
                        "remove it"
                    ) from error
            if len(images) == BATCH_SIZE:
                yield images
                images = []
        if images:
            yield images


def _read(path: Path) -> tuple[Tensor, Tensor]:
    mu, sigma = read_arrays(path, "mu", "sigma")
    return torch.from_numpy(mu), torch.from_numpy(sigma)
