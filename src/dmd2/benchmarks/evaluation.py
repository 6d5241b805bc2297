"""Images a second from uint8 to the sums of FID, against clean-fid and torch-fidelity with the same
network.
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
    """torch-fidelity's network, which resizes inside, as `TorchFidelityInception` holds it."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = pixelwise(copy.deepcopy(net))

    def features(self, samples: Tensor) -> Tensor:
        return self.net(samples)[0]


class Images(Dataset[Tensor]):
    """Images one by one, as torch-fidelity reads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def evaluation(
    source: None, resolution: int, num_images: int, batch_size: int, num_repeats: int
) -> list[str]:
    """A table of rates [images/s] and how many times theirs ours is, on the CPU.

    source       None: the images are made up, since rates do not depend on what they show.
    resolution   Of the images.
    num_images   Images a measurement, in whole batches.
    batch_size   Images at once.
    num_repeats  The median of so many measurements counts; each path takes its turn.
    """
    if source is not None:
        raise ValueError(f"this part makes its images up, got source={source}; leave it out")
    from cleanfid.fid import get_model_features  # noqa: PLC0415
    from torch_fidelity.utils import get_featuresdict_from_dataset  # noqa: PLC0415

    draw = generator(0, "benchmark images")
    images = torch.randint(
        0, 256, (num_images, 3, resolution, resolution), generator=draw, dtype=torch.uint8
    )
    batches, labels, cpu = images.split(batch_size), torch.zeros(batch_size), torch.device("cpu")
    net = random_inception()
    suite = MetricSuite(
        {"inception": Wrapped(net)}, {"fid": FrechetDistance("inception", "fid")}, batch_size
    )
    suite.fit(images[:2], labels[:2], images[:0], labels[:0])
    suite.reset()

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
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: PLC0415

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any) -> None:
            """Keep the weights as they were drawn."""

    with tempfile.TemporaryDirectory() as folder, seeded(0, "benchmark inception"):
        torch.save({}, Path(folder) / "nothing.pth")
        return Random("random", ["2048"], str(Path(folder) / "nothing.pth"))
