"""A suite of metrics: fitted on real data once, then asked for the numbers of a generator's
samples.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from dmd2.distributed.process_group import rank, world_size
from dmd2.io.files import locked
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.detectors import Detector
from dmd2.metrics.frechet import FrechetDistance

Batches = Iterable[tuple[Tensor, Tensor]]
"""Samples and the labels that were asked for."""


def blocks(rows: range, size: int) -> Iterator[range]:
    """This rank's blocks of `size` consecutive rows: block b is rank b % world_size's, all of it.

    What goes through a network together is then the same on any number of ranks, and with it every
    feature's
    last bit; what is beyond is added exactly.
    """
    for start in range(0, len(rows), size)[rank() :: world_size()]:
        yield rows[start : start + size]


class MetricSuite:
    """`detectors` and `metrics` by name (None for none); a metric's `detector` names the one whose
    features it reads.

    A plain class and not a module: the detectors' weights belong in nobody's checkpoint. Metrics
    add up over
    all ranks of an initialised process group, so each rank brings its own samples. Features of real
    data that a
    detector has a key for are kept in the folder `cache`, if there is one.
    """

    def __init__(
        self,
        detectors: Mapping[str, Detector | None],
        metrics: Mapping[str, FeatureMetric | None],
        batch_size: int = 500,
        cache: str | Path | None = None,
    ) -> None:
        self.detectors = {
            name: detector for name, detector in detectors.items() if detector is not None
        }
        self.metrics = {name: metric for name, metric in metrics.items() if metric is not None}
        for name, metric in self.metrics.items():
            if metric.detector not in self.detectors:
                raise ValueError(
                    f"metric {name} reads detector {metric.detector!r}; there are "
                    f"{sorted(self.detectors)}: "
                    f"set metric.metrics.{name}.detector to one of them"
                )
        self.batch_size, self.cache = batch_size, cache
        self.num_batches = 0
        self.device = torch.device("cpu")
        self.test = (torch.empty(0), torch.empty(0))

    def fit(
        self,
        train: Any,
        train_labels: Any,
        test: Any,
        test_labels: Any,
        device: torch.device | str = "cpu",
        key: str = "",
    ) -> None:
        """Fit the detectors to the real train split and take its features as the reference, on
        `device`.

        Samples are arrays or tensors, images uint8 [N, C, H, W] or toys float32 [N, 2], labels [N].
        `key` says
        what data this is: features are kept under it.
        """
        self.to(device)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*not writable"
            )  # a memory map, which nothing here writes to
            samples, labels = torch.as_tensor(train), torch.as_tensor(train_labels).long()
            self.test = torch.as_tensor(test), torch.as_tensor(test_labels).long()
        for name, detector in self.detectors.items():
            detector.fit(samples, labels)
            splits = {"train": samples, "test": self.test[0]}
            features = self._reference(
                detector, {part: x for part, x in splits.items() if len(x)}, key
            )
            train_features = features["train"]
            for metric in self.metrics.values():
                if metric.detector == name:
                    metric.set_reference(train_features, features.get("test", train_features[:0]))

    def to(self, device: torch.device | str) -> None:
        """Work on `device`."""
        self.device = torch.device(device)
        modules: list[nn.Module] = [*self.detectors.values(), *self.metrics.values()]
        for module in modules:
            module.to(self.device)

    def set_moments(self, detector: str, mu: Tensor, sigma: Tensor) -> None:
        """Take mean [D] and covariance [D, D] of a detector's features in place of real samples."""
        for name, metric in self.metrics.items():
            if metric.detector == detector:
                if not isinstance(metric, FrechetDistance):
                    raise ValueError(
                        f"metric {name} needs real features, and there are their mean and "
                        "covariance only"
                    )
                metric.set_moments(mu.to(self.device), sigma.to(self.device))

    def evaluate(self, batches: Batches) -> dict[str, float]:
        """The metrics of `batches`, by name in alphabetical order; raises what `compute` raises."""
        self.reset()
        self.update(batches)
        values = self.compute()
        self.reset()
        return values

    def reset(self) -> None:
        """Forget all samples."""
        self.num_batches = 0
        for metric in self.metrics.values():
            metric.reset()

    @torch.no_grad()
    def update(self, batches: Batches) -> None:
        """Add this rank's samples."""
        for samples, labels in batches:
            self.num_batches += 1
            features = {
                name: detector(samples.to(self.device)) for name, detector in self.detectors.items()
            }
            for metric in self.metrics.values():
                metric.update(features[metric.detector], labels.to(self.device))

    def sums(self) -> dict[str, Tensor]:
        """What this rank has added up, by metric and state."""
        states = {
            f"{name}.{key}": dim_zero_cat(value)
            for name, metric in self.metrics.items()
            for key, value in metric.metric_state.items()
            if isinstance(value, Tensor) or value
        }
        return states | {"num_batches": torch.tensor(self.num_batches)}

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Go on behind `sums()` of another life."""
        self.num_batches = int(sums["num_batches"])
        for name, metric in self.metrics.items():
            for key, value in metric.metric_state.items():
                if (found := sums.get(f"{name}.{key}")) is not None:
                    found = found.to(self.device)
                    setattr(metric, key, [found] if isinstance(value, list) else found)

    def compute(self) -> dict[str, float]:
        """The metrics of all samples of all ranks so far; more may follow.

        Raises ValueError if there are no samples, or if two metrics report the same name.
        """
        if self.num_batches == 0 and world_size() == 1:
            raise ValueError("there are no samples to evaluate")
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            for key, value in metric.compute().items():
                if metric.prefix + key in values:
                    raise ValueError(
                        f"two metrics report {metric.prefix + key}; set "
                        f"metric.metrics.{name}.prefix={name}_"
                    )
                values[metric.prefix + key] = float(value)
        return dict(sorted(values.items()))

    def floor(self) -> dict[str, float]:
        """The same numbers for the real test split as if it were samples: what a perfect generator
        gets.
        """
        samples, labels = self.test
        own = blocks(range(len(samples)), self.batch_size)
        return self.evaluate(
            (samples[rows.start : rows.stop], labels[rows.start : rows.stop]) for rows in own
        )

    def _reference(
        self, detector: Detector, splits: dict[str, Tensor], key: str
    ) -> dict[str, Tensor]:
        """A detector's features of real data; those worth keeping are made by one process and read
        by all.
        """
        own = detector.key()
        if self.cache is None or own is None:
            return {name: self._features(detector, split) for name, split in splits.items()}
        path = (
            Path(self.cache)
            / f"{hashlib.sha256(f'{key} {own}'.encode()).hexdigest()[:16]}.safetensors"
        )
        with locked(path):
            if not path.exists():
                save_tensors(
                    {name: self._features(detector, split) for name, split in splits.items()}, path
                )
        return {name: features.to(self.device) for name, features in read_tensors(path).items()}

    def _features(self, detector: Detector, samples: Tensor) -> Tensor:
        return torch.cat(
            [detector(batch.to(self.device)) for batch in samples.split(self.batch_size)]
        )
