"""Features of real data, which metrics compare with: computed once, and cached on disk."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.hashed_tensors import cached
from dmd2.io.progress import progress_bar
from dmd2.metrics.detectors import Detector


class RealFeatures:
    """Features of real data, computed `batch_size` at a time and cached in the folder `cache`.

    Without a folder, or for a detector without a key, they are computed anew each time.
    """

    def __init__(self, batch_size: int, cache: str | Path | None) -> None:
        self.batch_size, self.cache = batch_size, cache

    def __call__(
        self, detector: Detector, splits: Mapping[str, Tensor], key: str, device: torch.device
    ) -> dict[str, Tensor]:
        """Features [N, D] by split, on `device`, of samples by split; `key` names the data."""
        own = detector.key()
        if self.cache is None or own is None:
            return self._compute(detector, splits, device)
        # Both keys: another data set, or another detector, must not find these features.
        name = hashlib.sha256(f"{key} {own}".encode()).hexdigest()[:16]
        path = Path(self.cache) / f"{name}.safetensors"
        found = cached(path, lambda: self._compute(detector, splits, device))
        return {name: features.to(device) for name, features in found.items()}

    def _compute(
        self, detector: Detector, splits: Mapping[str, Tensor], device: torch.device
    ) -> dict[str, Tensor]:
        # A split may be memory-mapped and larger than a device: batches go there one by one.
        found = {name: list[Tensor]() for name in splits}
        with progress_bar("features of real data", sum(map(len, splits.values()))) as bar:
            for name, samples in splits.items():
                for x in samples.split(self.batch_size):
                    found[name].append(detector(x.to(device)))
                    bar.update(len(x))
        return {name: torch.cat(features) for name, features in found.items()}
