"""A suite of metrics: fitted on real data once, then asked for the numbers of a generator's samples."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.detectors import Detector


class Suite:
    """`detectors` and `metrics` by name; a metric's `detector` names the one whose features it reads.

    A plain class and not a module: the detectors' weights belong in nobody's checkpoint. Metrics add up over
    all ranks of an initialised process group, so each rank brings its own samples.
    """

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        metrics: Mapping[str, FeatureMetric],
        batch_size: int = 500,
    ) -> None:
        for name, metric in metrics.items():
            if metric.detector not in detectors:
                raise ValueError(
                    f"metric {name} reads detector {metric.detector!r}; there are {sorted(detectors)}: "
                    f"set metric.metrics.{name}.detector to one of them"
                )
        self.detectors, self.metrics = dict(detectors), dict(metrics)
        self.batch_size = batch_size
        self.device = torch.device("cpu")
        self.test = (torch.empty(0), torch.empty(0))

    def fit(
        self,
        train: Any,
        train_labels: Any,
        test: Any,
        test_labels: Any,
        device: torch.device | str = "cpu",
    ) -> None:
        """Fit the detectors to the real train split and take its features as the reference, on `device`.

        Samples are arrays or tensors, images uint8 [N, C, H, W] or toys float32 [N, 2], labels [N].
        """
        self.device = torch.device(device)
        samples, labels = torch.as_tensor(train), torch.as_tensor(train_labels).long()
        self.test = torch.as_tensor(test), torch.as_tensor(test_labels).long()
        modules: list[nn.Module] = [*self.detectors.values(), *self.metrics.values()]
        for module in modules:
            module.to(self.device)
        for name, detector in self.detectors.items():
            detector.fit(samples.to(self.device), labels.to(self.device))
            train_features, test_features = (
                torch.cat([detector(batch.to(self.device)) for batch in split.split(self.batch_size)])
                for split in (samples, self.test[0])
            )
            for metric in self.metrics.values():
                if metric.detector == name:
                    metric.set_reference(train_features, test_features)

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The metrics of `batches` of (samples, labels), by name in alphabetical order.

        Raises ValueError if there is no batch, or if two metrics report the same name.
        """
        for metric in self.metrics.values():
            metric.reset()
        num_batches = 0
        for samples, labels in batches:
            num_batches += 1
            self._update(samples.to(self.device), labels.to(self.device))
        if num_batches == 0:
            raise ValueError("there are no samples to evaluate")
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            for key, value in metric.compute().items():
                if metric.prefix + key in values:
                    raise ValueError(
                        f"two metrics report {metric.prefix + key}; set metric.metrics.{name}.prefix={name}_"
                    )
                values[metric.prefix + key] = float(value)
            metric.reset()
        return dict(sorted(values.items()))

    def floor(self) -> dict[str, float]:
        """The same numbers for the real test split as if it were samples: what a perfect generator gets.

        Several ranks share the split, each its part.
        """
        rank, world_size = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        samples, labels = (x[rank::world_size] for x in self.test)
        return self.evaluate(self._batches(samples, labels))

    def _batches(self, samples: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(samples.split(self.batch_size), labels.split(self.batch_size), strict=True)

    @torch.no_grad()
    def _update(self, samples: Tensor, labels: Tensor) -> None:
        features = {name: detector(samples) for name, detector in self.detectors.items()}
        for metric in self.metrics.values():
            metric.update(features[metric.detector], labels)
