"""Fréchet distance of Gaussians fitted to features: FID (Heusel et al. 2017, Eq. 6).

arXiv:1706.08500. With other features than Inception's it is FD-DINOv2, "rfd", and others.
"""

from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.arrays import read_arrays
from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.exact_sums import add_moments, in_units, step_for

# Rows of the reference that are float64 at a time.
CHUNK = 4096


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    """Fréchet distance [] of two Gaussians: means [D], covariances [D, D] (Heusel et al. Eq. 6).

    |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), in float64.

    >>> zero, one = torch.zeros(2), torch.eye(2)
    >>> frechet_distance(zero, one, zero + 3, 4 * one)
    tensor(20., dtype=torch.float64)
    """
    mu1, sigma1, mu2, sigma2 = (x.double() for x in (mu1, sigma1, mu2, sigma2))
    return _distance(mu1, sigma1, root(sigma1), mu2, sigma2)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of features [N, D], in float64."""
    # Around the mean and in float64: E[x x^T] - mu mu^T would cancel digits.
    mu = features.mean(0, dtype=torch.float64)
    outer = torch.zeros(len(mu), len(mu), dtype=mu.dtype, device=mu.device)
    for rows in features.split(CHUNK):
        outer += (rows - mu).T @ (rows - mu)
    return mu, outer / (len(features) - 1)


def root(sigma: Tensor) -> Tensor:
    """The symmetric root of a covariance [D, D]."""
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh(sigma)
    # A covariance of fewer samples than features is singular: rounding gives eigenvalues below 0.
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _distance(mu1: Tensor, sigma1: Tensor, root1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    # tr (sigma1 sigma2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric matrix
    # sigma1^(1/2) sigma2 sigma1^(1/2): six times faster than a matrix root, and never complex.
    trace_of_root: Tensor = torch.linalg.eigvalsh(root1 @ sigma2 @ root1).clamp_min(0).sqrt().sum()
    # Heusel et al. 2017, Eq. 6.
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * trace_of_root
    return distance.clamp_min(0)


class FrechetDistance(FeatureMetric):
    """Fréchet distance of the samples to the train split, reported as `name`; 0 is best.

    Its states are exact sums around the reference's mean (`dmd2.metrics.exact_sums`): any division
    of the same features into batches and ranks gives the same value to the last digit.
    """

    mu: Tensor
    sigma: Tensor
    root: Tensor
    num_samples: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, detector: str, name: str, prefix: str = "") -> None:
        super().__init__(detector, prefix)
        self.name, self.reports = name, (name,)
        for buffer in ("mu", "sigma", "root"):
            self.register_buffer(buffer, torch.empty(0), persistent=False)

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take mean and covariance of the train split's features [N, D]."""
        self.set_moments(*moments(train))

    def set_moments(self, mu: Tensor, sigma: Tensor) -> None:
        """Take the reference's mean [D] and covariance [D, D]; make the states of this width."""
        self.mu, self.sigma, self.root = mu.double(), sigma.double(), mu.new_empty(0)
        # One grid for all features, by the widest of them: that bounds what is clamped.
        self.step = step_for(float(self.sigma.diagonal().max().sqrt()))
        num = len(mu)
        for state, shape in (("num_samples", ()), ("total", (2 * num,)), ("outer", (num, 2 * num))):
            zeros = torch.zeros(shape, dtype=torch.int64, device=mu.device)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add the features [B, D] of samples; labels are not read."""
        self.num_samples += len(features)
        # Relative to the reference's mean the sums are small, and so is what rounding loses.
        add_moments(self.total, self.outer, features - self.mu, self.step)

    def compute(self) -> dict[str, Tensor]:
        """{name: the distance}."""
        return {self.name: self.distance()}

    def distance(self) -> Tensor:
        """The distance in the features' units squared."""
        # O(D^3), so the reference's own is taken once. Every rank computes it for itself, at the
        # same time, so none waits for another.
        if not len(self.root):
            self.root = root(self.sigma)
        total, outer = in_units(self.total, self.outer, self.step)
        shift = total / self.num_samples
        # sum (x - m)(x - m)^T = sum x x^T - N m m^T, over N - 1.
        sigma = (outer - self.num_samples * shift.outer(shift)) / (self.num_samples - 1)
        return _distance(self.mu, self.sigma, self.root, self.mu + shift, sigma)


class RelativeFrechetDistance(FrechetDistance):
    """The distance as a percentage of the reference's total variance: "rfd".

    Feature spaces of different scale become comparable.
    """

    def compute(self) -> dict[str, Tensor]:
        """{name: 100 times the distance over tr(sigma)}."""
        return {self.name: 100 * self.distance() / self.sigma.trace()}


class PublishedFrechetDistance(FrechetDistance):
    """Fréchet distance to published statistics, `mu` [D] and `sigma` [D, D] of an npz file.

    Without a `path` the train split's own are taken, and the score is not the published protocol's.
    Raises FileNotFoundError where `path` is missing.
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
        """Read the published moments onto the device of `train`.

        Raises ValueError where they are of another number of features.
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
