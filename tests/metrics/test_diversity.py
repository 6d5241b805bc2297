"""Diversity within a condition: by pairs, and lower for samples that have collapsed."""

import pytest
import torch
from torch import Tensor

from dmd2.metrics.diversity import ConditionDiversity


def measure(features: Tensor, labels: Tensor, size: int = 40) -> float:
    metric = ConditionDiversity("d")
    metric.set_reference(features[:3], features[:3])
    for x, label in zip(features.split(size), labels.split(size), strict=True):
        metric.update(x, label)
    return metric.compute()["diversity"].item()


def test_it_is_the_root_mean_square_over_pairs_of_a_label(features):
    x, labels = features[0], torch.arange(200) % 4
    squares = torch.cat([torch.pdist(x[labels == i].double()) ** 2 for i in range(4)])
    assert measure(x, labels) == pytest.approx(squares.mean().sqrt().item(), rel=1e-6)


def test_the_division_into_batches_and_their_order_change_nothing(features):
    x, labels = features[0], torch.arange(200) % 4
    assert measure(x, labels) == measure(x.flip(0), labels.flip(0), size=7)


def test_collapsed_samples_have_less_and_copies_of_one_have_none(features):
    x, labels = features[0], torch.arange(200) % 4
    centre = torch.stack([x[labels == i].mean(0) for i in range(4)])[labels]
    assert measure(centre + 0.5 * (x - centre), labels) == pytest.approx(
        0.5 * measure(x, labels), rel=1e-5
    )
    assert measure(x[:4].repeat(50, 1), labels) == pytest.approx(0, abs=1e-6)


def test_far_labels_are_no_diversity(features):
    x, labels = features[0], torch.arange(200) % 4
    apart = x + 100 * labels[:, None]
    assert measure(apart, labels) == pytest.approx(measure(x, labels), rel=1e-4)


def test_labels_of_one_sample_say_nothing():
    x = torch.randn(5, 3)
    twice = torch.tensor([0, 0, 1, 2, 3])
    assert measure(x, twice) == pytest.approx((x[0] - x[1]).norm().item(), rel=1e-5)
    metric = ConditionDiversity("d")
    metric.set_reference(x, x)
    metric.update(x, torch.arange(5))
    assert metric.compute() == {}
