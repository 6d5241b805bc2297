"""MetricSuite: detectors and metrics, fitted to real data once, then evaluated on samples."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from dmd2.distributed.process_group import rank_blocks, world_size
from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.detectors import Detector
from dmd2.metrics.frechet import FrechetDistance
from dmd2.metrics.real_features import RealFeatures

Batches = Iterable[tuple[Tensor, Tensor]]
"""Samples (uint8 [B, C, H, W], toys float32 [B, 2]) and the labels [B] that were asked for."""


class MetricSuite:
    """Detectors and metrics by name; a metric's `detector` names the one whose features it reads.

    detectors   By name; None leaves one out.
    metrics     By name; None leaves one out.
    batch_size  Real samples at a time.
    cache       Folder for features of real data, of detectors that have a key; None caches nothing.

    Metrics add up over all ranks of an initialised process group: each rank adds its own samples.
    Raises ValueError where a metric names a detector that is not there.

    >>> from dmd2.metrics import Flatten, SlicedWasserstein
    >>> suite = MetricSuite({"points": Flatten()}, {"swd": SlicedWasserstein("points")})
    >>> real, labels = torch.randn(64, 2), torch.zeros(64)
    >>> suite.fit(real, labels, real, labels)
    >>> suite.evaluate([(real, labels)])  # the training data itself
    {'sliced_wasserstein': 0.0}
    """

    # Not a module: the detectors' weights belong in nobody's checkpoint.

    def __init__(
        self,
        detectors: Mapping[str, Detector | None],
        metrics: Mapping[str, FeatureMetric | None],
        batch_size: int = 500,
        cache: str | Path | None = None,
    ) -> None:
        self.metrics = {name: metric for name, metric in metrics.items() if metric is not None}
        # One that no metric reads would see every sample for nothing.
        read = {metric.detector for metric in self.metrics.values()}
        there = {name: one for name, one in detectors.items() if one is not None}
        self.detectors = {name: detector for name, detector in there.items() if name in read}
        for name, metric in self.metrics.items():
            if metric.detector not in self.detectors:
                raise ValueError(
                    f"metric {name} reads detector {metric.detector!r}; there are "
                    f"{sorted(there)}: "
                    f"set metric.metrics.{name}.detector to one of them"
                )
        self.batch_size = batch_size
        self.real_features = RealFeatures(batch_size, cache)
        self.num_batches = 0
        self.device = torch.device("cpu")
        # Kept for floor().
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
        """Fit the detectors to the real train split and take its features as the reference.

        Samples are arrays or tensors, images uint8 [N, C, H, W] or toys float32 [N, 2], labels [N].
        `key` says what data this is: features are cached under it. A detector whose metrics do not
        read real data sees one sample.
        """
        self.to(device)
        with warnings.catch_warnings():
            # Of a memory map, which nothing here writes to.
            warnings.filterwarnings("ignore", ".*not writable")
            samples, labels = torch.as_tensor(train), torch.as_tensor(train_labels).long()
            self.test = torch.as_tensor(test), torch.as_tensor(test_labels).long()
        for name, detector in self.detectors.items():
            splits = {"train": samples, "test": self.test[0]}
            # An empty test split has features of no width; metrics get an empty tensor of train's.
            given = {part: x for part, x in splits.items() if len(x)}
            readers = [metric for metric in self.metrics.values() if metric.detector == name]
            try:
                detector.fit(samples, labels)
                if any(metric.reads_real for metric in readers):
                    features = self.real_features(detector, given, key, self.device)
                else:
                    features = {"train": detector(samples[:1].to(self.device))}
            except RuntimeError as error:
                if samples.ndim > 2:
                    raise
                raise ValueError(
                    f"the detector {name} reads images, and this data are points: choose another "
                    f"metric, e.g. metric=toy ({error})"
                ) from error
            train_features = features["train"]
            for metric in readers:
                metric.set_labels(labels.to(self.device))
                metric.set_reference(train_features, features.get("test", train_features[:0]))

    def to(self, device: torch.device | str) -> None:
        """Move detectors and metrics to `device`; samples are moved there batch by batch."""
        self.device = torch.device(device)
        modules: list[nn.Module] = [*self.detectors.values(), *self.metrics.values()]
        for module in modules:
            module.to(self.device)

    def set_moments(self, detector: str, mu: Tensor, sigma: Tensor) -> None:
        """Take mean [D] and covariance [D, D] of a detector's features in place of real samples.

        Raises ValueError where a metric reads more of the detector's real features.
        """
        for name, metric in self.metrics.items():
            if metric.detector != detector:
                continue
            if isinstance(metric, FrechetDistance):
                metric.set_moments(mu.to(self.device), sigma.to(self.device))
            elif metric.reads_real:
                raise ValueError(
                    f"metric {name} needs real features, and there are their mean and covariance "
                    "only"
                )
            else:
                row = mu[None].float().to(self.device)
                metric.set_reference(row, row[:0])

    def evaluate(self, batches: Batches) -> dict[str, float]:
        """The metrics of `batches`, by name in alphabetical order; raises what `compute` raises."""
        self.reset()
        self.update(batches)
        values = self.compute()
        # Reset again: what the metrics hold would stay in memory until the next evaluation.
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
            self.num_batches += 1  # of this rank, whatever its size
            # A detector once a batch, for all the metrics that read it.
            features = {
                name: detector(samples.to(self.device)) for name, detector in self.detectors.items()
            }
            for metric in self.metrics.values():
                metric.update(features[metric.detector], labels.to(self.device))

    def sums(self) -> dict[str, Tensor]:
        """What this rank has added up, by metric and state, to resume an evaluation from."""
        states = {
            f"{name}.{key}": dim_zero_cat(value)
            for name, metric in self.metrics.items()
            for key, value in metric.metric_state.items()
            if isinstance(value, Tensor) or value  # an empty list has nothing to join
        }
        return states | {"num_batches": torch.tensor(self.num_batches)}

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from the `sums()` of an interrupted evaluation."""
        self.num_batches = int(sums["num_batches"])
        for name, metric in self.metrics.items():
            for key, value in metric.metric_state.items():
                if (found := sums.get(f"{name}.{key}")) is not None:
                    # Stored features were joined to one tensor; torchmetrics wants a list again.
                    found = found.to(self.device)
                    setattr(metric, key, [found] if isinstance(value, list) else found)

    def compute(self) -> dict[str, float]:
        """The metrics of all samples of all ranks so far; more may follow.

        Raises ValueError if there are no samples, or if two metrics report the same name.
        """
        # With more ranks than blocks, a rank without samples is no error.
        if self.num_batches == 0 and world_size() == 1:
            raise ValueError("there are no samples to evaluate")
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            for key, value in metric.compute().items():
                label, slash, own = key.rpartition("/")
                key = f"{label}{slash}{metric.prefix}{own}"
                # Two Fréchet distances of one name would otherwise overwrite each other.
                if key in values:
                    raise ValueError(
                        f"two metrics report {key}; set metric.metrics.{name}.prefix={name}_"
                    )
                values[key] = float(value)
        return dict(sorted(values.items()))

    def floor(self) -> dict[str, float]:
        """The metrics of the real test split, as if it were samples: what a perfect model gets."""
        samples, labels = self.test
        # Divided among ranks as a generator's samples are.
        own = rank_blocks(range(len(samples)), self.batch_size)
        return self.evaluate(
            (samples[rows.start : rows.stop], labels[rows.start : rows.stop]) for rows in own
        )
