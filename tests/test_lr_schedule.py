"""The factor of the learning rate, iteration by iteration."""

import math

import pytest

from dmd2.training.lr_schedule import WarmupCosine


def test_warm_up_is_linear_and_the_first_step_is_not_lost():
    factor = WarmupCosine(100, warmup=4)
    assert [factor(i) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_constant_without_warm_up_and_decay():
    assert {WarmupCosine(100)(i) for i in range(101)} == {1.0}


def test_decay_is_a_cosine_from_its_start_to_zero():
    factor = WarmupCosine(100, decay_from=0.5)
    assert factor(50) == 1.0
    assert factor(75) == pytest.approx(0.5)
    assert factor(60) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 5))
    assert factor(100) == pytest.approx(0.0, abs=1e-12)


def test_factor_never_rises_after_warm_up():
    factor = WarmupCosine(50, warmup=5, decay_from=0.0)
    values = [factor(i) for i in range(5, 51)]
    assert values == sorted(values, reverse=True)
