"""Scores of each class: distance to the real images of that class, diversity and accuracy alone."""

import pytest
import torch
from torch import Tensor

from dmd2.metrics.accuracy import ClassAccuracy
from dmd2.metrics.class_distance import ClassDistance
from dmd2.metrics.detectors import Flatten
from dmd2.metrics.diversity import ConditionDiversity
from dmd2.metrics.suite import MetricSuite


def points(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes [3 num, 8] of variance 8 around 0, 10 and 20."""
    labels = torch.arange(3 * num) % 3
    noise = torch.randn(3 * num, 8, generator=torch.Generator().manual_seed(seed))
    return noise + 10.0 * labels[:, None], labels


def suite() -> MetricSuite:
    metrics = {"distance": ClassDistance("points"), "diversity": ConditionDiversity("points")}
    found = MetricSuite({"points": Flatten()}, metrics)
    found.fit(*points(500, seed=0), *points(200, seed=1))
    return found


def test_a_class_that_moved_is_named_and_real_data_are_at_zero() -> None:
    found = suite()
    floor = found.floor()
    assert all(abs(floor[f"{i}/class_distance"]) < 1.5 for i in range(3))
    x, labels = points(200, seed=2)
    x[labels == 1] += 2.0  # 8 numbers moved by 2: 32, of a variance of 8
    moved = found.evaluate([(x[:300], labels[:300]), (x[300:], labels[300:])])
    assert moved["1/class_distance"] == pytest.approx(400, rel=0.1)
    assert abs(moved["0/class_distance"]) < 1.5
    mean = sum(moved[f"{i}/class_distance"] for i in range(3)) / 3
    assert moved["class_distance"] == pytest.approx(mean)


def test_few_samples_are_no_distance_on_average() -> None:
    found = suite()
    means = [found.evaluate([points(4, seed)])["class_distance"] for seed in range(100, 200)]
    # Four samples have a mean that is off by a fourth of the variance, 25 %, in expectation.
    assert abs(torch.tensor(means).mean()) < 2


def test_a_class_of_copies_of_one_image_has_no_distance() -> None:
    x, labels = points(20, seed=0)
    x[labels == 1] = x[1].clone()
    found = MetricSuite({"points": Flatten()}, {"distance": ClassDistance("points")})
    found.fit(x, labels, x, labels)
    assert set(found.floor()) == {"class_distance", "0/class_distance", "2/class_distance"}


def test_diversity_of_each_class_is_that_of_its_samples_alone() -> None:
    x, labels = points(200, seed=3)
    x[labels == 2] = 20.0 + 0.5 * (x[labels == 2] - 20.0)
    found = suite().evaluate([(x, labels)])
    assert found["2/diversity"] == pytest.approx(0.5 * found["0/diversity"], rel=0.1)
    squares = sum(found[f"{i}/diversity"] ** 2 for i in range(3)) / 3
    assert found["diversity"] == pytest.approx(squares**0.5)


def test_accuracy_of_each_class_counts_its_samples_alone() -> None:
    metric = ClassAccuracy("logits")
    metric.set_reference(torch.eye(4), torch.eye(4))
    metric.update(torch.eye(4), torch.tensor([0, 1, 0, 0]))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == {"accuracy": 0.5, "0/accuracy": pytest.approx(1 / 3), "1/accuracy": 1.0}


def test_a_prefix_stands_before_the_metric_and_not_before_the_class() -> None:
    metrics = {"a": ClassDistance("points", prefix="a_")}
    found = MetricSuite({"points": Flatten()}, metrics)
    found.fit(*points(20, seed=0), *points(20, seed=1))
    assert set(found.floor()) == {"a_class_distance", *(f"{i}/a_class_distance" for i in range(3))}
