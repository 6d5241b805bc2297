"""Fréchet distance of Gaussians fitted to features: FID of Heusel et al. 2017 (arXiv:1706.08500), Eq. 6."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmd2.metrics.base import FeatureMetric


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) of means [D] and covariances [D, D].

    In float64. The trace of the root is the sum of roots of the eigenvalues of the symmetric matrix
    sigma1^(1/2) sigma2 sigma1^(1/2): six times faster than a matrix root, and defined where it is singular.
    """
    mu1, sigma1, mu2, sigma2 = (x.double() for x in (mu1, sigma1, mu2, sigma2))
    values, vectors = torch.linalg.eigh(sigma1)
    root1 = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    trace_of_root = torch.linalg.eigvalsh(root1 @ sigma2 @ root1).clamp_min(0).sqrt().sum()
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * trace_of_root
    return distance.clamp_min(0)


class FrechetDistance(FeatureMetric):
    """Fréchet distance of the samples to the train split, reported as `name`.

    Its states are float64 sums around the reference's mean, so any division into batches and ranks gives the
    same value to about 12 digits.
    """

    mu: Tensor
    sigma: Tensor
    num_samples: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, detector: str, name: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.name = name
        self.register_buffer("mu", torch.empty(0), persistent=False)
        self.register_buffer("sigma", torch.empty(0), persistent=False)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take mean and covariance of the train split's features [N, D]."""
        train = train.double()
        self.set_moments(train.mean(0), train.T.cov())

    def set_moments(self, mu: Tensor, sigma: Tensor) -> None:
        """Take the reference's mean [D] and covariance [D, D]; make the states, whose width is now known."""
        self.mu, self.sigma = mu.double(), sigma.double()
        for state, zero in (
            ("num_samples", self.mu.new_zeros(())),
            ("total", torch.zeros_like(self.mu)),
            ("outer", torch.zeros_like(self.sigma)),
        ):
            self.add_state(state, default=zero, dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        x = features.double() - self.mu
        self.num_samples += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x

    def compute(self) -> dict[str, Tensor]:
        return {self.name: self.distance()}

    def distance(self) -> Tensor:
        """The distance in the features' units squared."""
        shift = self.total / self.num_samples
        sigma = (self.outer - self.num_samples * shift.outer(shift)) / (self.num_samples - 1)
        return frechet_distance(self.mu, self.sigma, self.mu + shift, sigma)


class RelativeFrechetDistance(FrechetDistance):
    """The same as a percentage of the reference's total variance, which makes spaces comparable: "rfd"."""

    def compute(self) -> dict[str, Tensor]:
        return {self.name: 100 * self.distance() / self.sigma.trace()}


class PublishedFrechetDistance(FrechetDistance):
    """Fréchet distance to `mu` [D] and `sigma` [D, D] of an npz file, such as EDM's reference statistics."""

    def __init__(self, detector: str, name: str, path: str | Path, prefix: str = "") -> None:
        super().__init__(detector, name, prefix)
        self.path = Path(path)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Read the published moments onto the device of `train`. Raises FileNotFoundError."""
        with np.load(self.path, allow_pickle=False) as file:
            mu, sigma = (torch.from_numpy(file[key]).to(train.device) for key in ("mu", "sigma"))
        self.set_moments(mu, sigma)
