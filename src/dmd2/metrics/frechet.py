"""Fréchet distance of Gaussians fitted to features: FID of Heusel et al. 2017 (arXiv:1706.08500),
Eq. 6.
"""

from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.arrays import read_arrays
from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.exact_sums import add_moments, in_units, step_for

CHUNK = 4096  # rows of the reference that are float64 at a time


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) of means [D] and covariances
    [D, D].

    In float64. The trace of the root is the sum of roots of the eigenvalues of the symmetric matrix
    sigma1^(1/2) sigma2 sigma1^(1/2): six times faster than a matrix root, and defined where it is
    singular.
    """
    mu1, sigma1, mu2, sigma2 = (x.double() for x in (mu1, sigma1, mu2, sigma2))
    return _distance(mu1, sigma1, root(sigma1), mu2, sigma2)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of features [N, D], in float64."""
    mu = features.mean(0, dtype=torch.float64)
    outer = torch.zeros(len(mu), len(mu), dtype=mu.dtype, device=mu.device)
    for rows in features.split(CHUNK):
        outer += (rows - mu).T @ (rows - mu)
    return mu, outer / (len(features) - 1)


def root(sigma: Tensor) -> Tensor:
    """The symmetric root of a covariance [D, D]."""
    values, vectors = torch.linalg.eigh(sigma)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _distance(mu1: Tensor, sigma1: Tensor, root1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    trace_of_root = torch.linalg.eigvalsh(root1 @ sigma2 @ root1).clamp_min(0).sqrt().sum()
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * trace_of_root
    return distance.clamp_min(0)


class FrechetDistance(FeatureMetric):
    """Fréchet distance of the samples to the train split, reported as `name`.

    Its states are exact sums around the reference's mean (`dmd2.metrics.exact_sums`), so any
    division of the same
    features into batches and ranks gives the same value to the last digit. All ranks take the
    matrix root at the
    same time, each for itself, so none waits for another; the reference's own is taken once.
    """

    mu: Tensor
    sigma: Tensor
    root: Tensor
    num_samples: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, detector: str, name: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.name = name
        for buffer in ("mu", "sigma", "root"):
            self.register_buffer(buffer, torch.empty(0), persistent=False)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take mean and covariance of the train split's features [N, D]."""
        self.set_moments(*moments(train))

    def set_moments(self, mu: Tensor, sigma: Tensor) -> None:
        """Take the reference's mean [D] and covariance [D, D]; make the states, whose width is now
        known.
        """
        self.mu, self.sigma, self.root = mu.double(), sigma.double(), mu.new_empty(0)
        self.step = step_for(float(self.sigma.diagonal().max().sqrt()))
        num = len(mu)
        for state, shape in (("num_samples", ()), ("total", (2 * num,)), ("outer", (num, 2 * num))):
            zeros = torch.zeros(shape, dtype=torch.int64, device=mu.device)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        self.num_samples += len(features)
        add_moments(self.total, self.outer, features - self.mu, self.step)

    def compute(self) -> dict[str, Tensor]:
        return {self.name: self.distance()}

    def distance(self) -> Tensor:
        """The distance in the features' units squared."""
        if not len(self.root):
            self.root = root(self.sigma)
        total, outer = in_units(self.total, self.outer, self.step)
        shift = total / self.num_samples
        sigma = (outer - self.num_samples * shift.outer(shift)) / (self.num_samples - 1)
        return _distance(self.mu, self.sigma, self.root, self.mu + shift, sigma)


class RelativeFrechetDistance(FrechetDistance):
    """The same as a percentage of the reference's total variance, which makes spaces comparable:
    "rfd".
    """

    def compute(self) -> dict[str, Tensor]:
        return {self.name: 100 * self.distance() / self.sigma.trace()}


class PublishedFrechetDistance(FrechetDistance):
    """Fréchet distance to `mu` [D] and `sigma` [D, D] of an npz file, such as EDM's reference
    statistics.

    Without a `path` the train split's own are taken, and the score is not the published protocol's.
    """

    def __init__(self, detector: str, name: str, path: str | Path | None, prefix: str = "") -> None:
        super().__init__(detector, name, prefix)
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(
                f"no reference statistics at {path}; for the data's own type "
                f"metric.suite.metrics.{name}.path=null"
            )
        self.path = path

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Read the published moments onto the device of `train`; raises ValueError where their
        width is another.
        """
        if self.path is None:
            return super().set_reference(train, test)
        mu, sigma = (
            torch.from_numpy(x).to(train.device)
            for x in read_arrays(Path(self.path), "mu", "sigma")
        )
        if mu.shape != train.shape[1:]:
            raise ValueError(
                f"{self.path} has {len(mu)} means, detector {self.detector} {train.shape[1]} "
                "features"
            )
        self.set_moments(mu, sigma)
