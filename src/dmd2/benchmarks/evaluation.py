"""Speed of FID's statistics from uint8 images, against clean-fid and torch-fidelity.

All paths use the same Inception network, with random weights: they differ in how images are read,
resized and summed.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dmd2.metrics.detectors import Detector
from dmd2.metrics.frechet import FrechetDistance
from dmd2.metrics.inception import pixelwise
from dmd2.metrics.suite import MetricSuite
from dmd2.randomness import generator, seeded


class Wrapped(Detector):
    """torch-fidelity's network as a detector; it resizes inside, like `TorchFidelityInception`."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        # A copy, since `pixelwise` changes the network, which the other paths use as it is.
        self.net = pixelwise(copy.deepcopy(net))

    def features(self, samples: Tensor) -> Tensor:
        """Inception's features [B, 2048] of images uint8 [B, 3, H, W]."""
        return self.net(samples)[0]


class Images(Dataset[Tensor]):
    """A data set of single images uint8 [3, H, W], as torch-fidelity reads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def evaluation(
    source: None, resolution: int, num_images: int, batch_size: int, num_repeats: int
) -> list[str]:
    """A table of rates [images/s] and of our rate over theirs, on the CPU.

    source       None: the images are random, since rates do not depend on what they show.
    resolution   Height and width of the images in pixels.
    num_images   Images a measurement, a multiple of `batch_size`.
    batch_size   Images at once.
    num_repeats  Measurements of each path, which take turns; their median is shown.

    Raises ValueError for a source, ImportError without clean-fid and torch-fidelity.
    """
    if source is not None:
        raise ValueError(f"this part makes its images up, got source={source}; leave it out")
    from cleanfid.fid import get_model_features  # noqa: PLC0415
    from torch_fidelity.utils import get_featuresdict_from_dataset  # noqa: PLC0415

    draw = generator(0, "benchmark images")
    images = torch.randint(
        0, 256, (num_images, 3, resolution, resolution), generator=draw, dtype=torch.uint8
    )
    # On the CPU even where there is a GPU, as in the other paths.
    batches, labels, cpu = images.split(batch_size), torch.zeros(batch_size), torch.device("cpu")
    net = random_inception()
    suite = MetricSuite(
        {"inception": Wrapped(net)}, {"fid": FrechetDistance("inception", "fid")}, batch_size
    )
    # Two images are enough: only `update` is timed, and FID needs two to have a covariance.
    suite.fit(images[:2], labels[:2], images[:0], labels[:0])
    suite.reset()

    # clean-fid asks its generator for a batch at a time, from a latent that is ignored here.
    def clean_fid(mode: str) -> None:
        waiting = iter(batches)
        settings = {
            "num_gen": num_images,
            "batch_size": batch_size,
            "device": cpu,
            "verbose": False,
        }
        get_model_features(
            lambda _: next(waiting), lambda x: net(x.to(torch.uint8))[0], mode, 1, **settings
        )

    paths: dict[str, Callable[[], object]] = {
        "ours, with the sums": lambda: suite.update(
            (batch, labels[: len(batch)]) for batch in batches
        ),
        "clean-fid, resizing in the network": lambda: clean_fid("legacy_tensorflow"),
        "clean-fid, resizing with PIL": lambda: clean_fid("clean"),
        "torch-fidelity": lambda: get_featuresdict_from_dataset(
            Images(images), net, batch_size, False, True, False
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    # By turns, so that a slow phase of the machine meets all paths alike.
    for _ in range(num_repeats):
        for name, run in paths.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    rates = {name: num_images / median(found) for name, found in seconds.items()}
    ours = next(iter(rates.values()))
    lines = [f"| {name} | {rate:.1f} | {ours / rate:.2f} |" for name, rate in rates.items()]
    return ["| path | images/s | ours / it |", "|---|---|---|", *lines]


def random_inception() -> Any:
    """torch-fidelity's Inception-v3 with random weights, without its download."""
    from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415
        FeatureExtractorInceptionV3,
    )

    # Its constructor reads a file of weights whatever one does: here an empty one, and ignored.
    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any) -> None:
            """Keep the weights as they were drawn."""

    with tempfile.TemporaryDirectory() as folder, seeded(0, "benchmark inception"):
        torch.save({}, Path(folder) / "nothing.pth")
        return Random("random", ["2048"], str(Path(folder) / "nothing.pth"))
