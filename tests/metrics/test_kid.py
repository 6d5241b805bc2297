"""Kernel distance: brute force, parity with torchmetrics and clean-fid, subsets from the seed
alone.
"""

import pytest
import torch
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from dmd2.metrics.kid import KernelDistance, cubic_mmd2

NO_LABELS = torch.zeros(0)


def measure(real, fake, **settings):
    metric = KernelDistance("d", **settings)
    metric.set_reference(real, real)
    for batch in fake.split(40):
        metric.update(batch, NO_LABELS)
    return metric.compute()["kid"].item()


def test_brute_force_over_pairs():
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)

    def mean(a, b, pairs):
        return sum((a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs) / len(pairs)

    everyone = [(i, j) for i in range(5) for j in range(5)]
    others = [(i, j) for i, j in everyone if i != j]
    expected = mean(x, x, others) + mean(y, y, others) - 2 * mean(x, y, everyone)
    torch.testing.assert_close(cubic_mmd2(x, y), expected)


def test_unbiased_around_zero_for_one_distribution():
    draws = torch.Generator().manual_seed(0)
    values = torch.stack([cubic_mmd2(*torch.randn(2, 30, 4, generator=draws)) for _ in range(200)])
    assert values.min() < 0 < values.max()
    assert values.mean().abs() < 4 * values.std() / 200**0.5


def test_subsets_depend_on_the_seed_and_not_on_the_order(features):
    real, fake = features
    first = measure(real, fake, num_subsets=3, subset_size=50)
    assert measure(real, fake.flip(0), num_subsets=3, subset_size=50) == pytest.approx(
        first, rel=1e-12
    )
    assert measure(real, fake, num_subsets=3, subset_size=50, seed=1) != pytest.approx(
        first, rel=1e-3
    )


def test_torchmetrics_agrees(features):
    real, fake = features[0][:150], features[1]
    theirs = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=150)
    theirs.update(real.double(), real=True)
    theirs.update(fake.double(), real=False)
    expected = theirs.compute()[0].item()
    assert measure(real, fake, num_subsets=1) == pytest.approx(expected, rel=1e-7)


def test_torch_fidelity_agrees(features):
    theirs = pytest.importorskip(
        "torch_fidelity.metric_kid", reason="torch-fidelity is not installed (extra: eval)"
    )
    real, fake = features[0][:150], features[1]
    settings = {"kid_subsets": 1, "kid_subset_size": 150, "verbose": False}
    expected = theirs.kid_features_to_metric(real.double(), fake.double(), **settings)
    assert measure(real, fake, num_subsets=1) == pytest.approx(
        expected["kernel_inception_distance_mean"], rel=1e-7
    )


def test_clean_fid_agrees(features):
    clean_fid = pytest.importorskip(
        "cleanfid.fid", reason="clean-fid is not installed (extra: eval)"
    )
    real, fake = features[0][:150], features[1]
    theirs = clean_fid.kernel_distance(real.double().numpy(), fake.double().numpy(), num_subsets=1)
    assert measure(real, fake, num_subsets=1) == pytest.approx(theirs, rel=1e-7)
