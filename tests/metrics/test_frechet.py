"""Fréchet distance: closed forms, parity with four other implementations, exactness under
sharding.
"""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dmd2.metrics.frechet import (
    FrechetDistance,
    PublishedFrechetDistance,
    RelativeFrechetDistance,
    frechet_distance,
)

NO_LABELS = torch.zeros(0)


def moments(x):
    return x.double().mean(0), x.double().T.cov()


def measure(metric, real, *fakes):
    metric.set_reference(real, real)
    for fake in fakes:
        metric.update(fake, NO_LABELS)
    return metric.compute()["fd"].item()


def test_diagonal_gaussians_have_a_closed_form():
    mu1, mu2, a, b = torch.rand(4, 5, dtype=torch.float64)
    expected = (mu1 - mu2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    torch.testing.assert_close(frechet_distance(mu1, a.diag(), mu2, b.diag()), expected)


def test_scipy_matrix_root_agrees(features):
    (mu1, sigma1), (mu2, sigma2) = map(moments, features)
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    expected = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * np.trace(root)
    assert frechet_distance(mu1, sigma1, mu2, sigma2).item() == pytest.approx(
        expected.item(), rel=1e-9
    )


def test_scipy_agrees_where_covariances_have_no_full_rank():
    draws = torch.Generator().manual_seed(2)
    (mu1, sigma1), (mu2, sigma2) = (moments(torch.randn(20, 30, generator=draws)) for _ in range(2))
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    expected = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * np.trace(root)
    assert frechet_distance(mu1, sigma1, mu2, sigma2).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_symmetric_and_zero_only_between_equals(features):
    one, two = map(moments, features)
    there, back = frechet_distance(*one, *two), frechet_distance(*two, *one)
    torch.testing.assert_close(there, back)
    assert there > 0.1
    assert 0 <= frechet_distance(*one, *one) < 1e-6


def test_singular_covariances_are_fine():
    few = torch.randn(3, 10)
    assert frechet_distance(*moments(few), *moments(few)) < 1e-5
    assert frechet_distance(*moments(few), *moments(few + 2)).item() == pytest.approx(40, rel=1e-4)


def test_a_shift_costs_its_square_and_both_shifted_nothing(features):
    real, fake = features
    shift = torch.arange(6.0)
    assert measure(FrechetDistance("d", "fd"), real, real + shift) == pytest.approx(55, rel=1e-5)
    moved = measure(FrechetDistance("d", "fd"), real + shift, fake + shift)
    assert moved == pytest.approx(measure(FrechetDistance("d", "fd"), real, fake), rel=1e-5)


def test_relative_distance_ignores_the_unit(features):
    real, fake = features
    ours = measure(RelativeFrechetDistance("d", "fd"), real, fake)
    plain = measure(FrechetDistance("d", "fd"), real, fake)
    assert ours == pytest.approx(100 * plain / moments(real)[1].trace().item())
    assert measure(RelativeFrechetDistance("d", "fd"), 8 * real, 8 * fake) == pytest.approx(ours)


def test_halves_merge_into_the_whole(features):
    real, fake = features
    whole = measure(FrechetDistance("d", "fd"), real, fake)
    assert measure(FrechetDistance("d", "fd"), real, *fake.flip(0).split(7)) == whole
    first, second = FrechetDistance("d", "fd"), FrechetDistance("d", "fd")
    measure(first, real, fake[:40])
    measure(second, real, fake[40:])
    first.merge_state(second)
    assert first.distance().item() == whole


@pytest.mark.parametrize(
    "cast",
    [
        lambda metric: nn.ModuleList([metric]).half(),
        lambda metric: nn.ModuleList([metric]).to(torch.bfloat16),
        lambda metric: metric.set_dtype(torch.float16),
    ],
)
def test_sums_stay_exact_in_a_half_precision_model(features, cast):
    real, fake = features
    metric = FrechetDistance("d", "fd")
    before = measure(metric, real, fake)
    cast(metric)
    assert {metric.mu.dtype, metric.sigma.dtype, metric.root.dtype} == {torch.float64}
    assert metric.distance().item() == before
    metric.reset()
    assert metric.outer.dtype == torch.int64


def test_published_moments(features, tmp_path):
    real, fake = features
    mu, sigma = moments(real)
    np.savez(tmp_path / "reference.npz", mu=mu.numpy(), sigma=sigma.numpy())
    published = PublishedFrechetDistance("d", "fd", tmp_path / "reference.npz")
    expected = measure(FrechetDistance("d", "fd"), real, fake)
    assert measure(published, torch.empty(0, 6), fake) == pytest.approx(expected)
    assert measure(PublishedFrechetDistance("d", "fd", None), real, fake) == expected
    with pytest.raises(ValueError, match="6 means, detector d 5 features"):
        published.set_reference(torch.empty(0, 5), torch.empty(0, 5))
    with pytest.raises(FileNotFoundError, match=r"metric\.suite\.metrics\.fd\.path=null"):
        PublishedFrechetDistance("d", "fd", tmp_path / "gone.npz")


def test_torchmetrics_agrees(features):
    class Identity(nn.Identity):
        num_features = 6

    real, fake = features
    theirs = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    theirs.update(real.double(), real=True)
    theirs.update(fake.double(), real=False)
    ours = measure(FrechetDistance("d", "fd"), real, fake)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-7)


def test_clean_fid_agrees(features):
    clean_fid = pytest.importorskip(
        "cleanfid.fid", reason="clean-fid is not installed (extra: eval)"
    )
    real, fake = features
    theirs = clean_fid.fid_from_feats(fake.double().numpy(), real.double().numpy())
    assert measure(FrechetDistance("d", "fd"), real, fake) == pytest.approx(theirs, rel=1e-6)
