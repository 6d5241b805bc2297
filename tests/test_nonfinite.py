"""The watch over non-finite numbers: who was first, and when."""

import pytest
import torch

from dmd2.training.nonfinite import NonFiniteGuard

ONE, NAN, INF = (torch.tensor(x) for x in (1.0, float("nan"), float("inf")))


def test_finite_numbers_pass():
    guard = NonFiniteGuard()
    assert bool(guard.watch({"a": ONE, "b": ONE}, 1))
    guard.check()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_number_makes_the_whole_watch_bad(bad):
    assert not bool(NonFiniteGuard().watch({"a": ONE, "b": bad}, 1))


def test_the_earliest_fault_is_named_and_only_it():
    guard = NonFiniteGuard()
    guard.watch({"critic/a": ONE}, 1)
    guard.watch({"critic/a": NAN}, 7)
    guard.watch({"generator/b": INF, "generator/c": ONE}, 6)
    guard.watch({"generator/b": ONE, "generator/c": NAN}, 8)
    with pytest.raises(
        FloatingPointError, match=r"^iteration 6: generator/b not finite; the step was not applied$"
    ):
        guard.check()


def test_faults_of_one_iteration_are_named_together_and_stay():
    guard = NonFiniteGuard()
    guard.watch({"a": NAN, "b": ONE, "c": INF}, 3)
    guard.watch({"a": ONE, "b": ONE, "c": ONE}, 4)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="iteration 3: a, c not finite"):
            guard.check()


def test_allowed_faults_are_said_and_counted_and_one_more_is_too_many(capsys):
    guard = NonFiniteGuard(allowed=2)
    for iteration, number in enumerate((NAN, ONE, INF), 1):
        guard.watch({"a": number}, iteration)
        guard.check()
    assert guard.skipped == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": a not finite")[0] for line in told] == [
        "dmd2: iteration 1",
        "dmd2: iteration 3",
    ]
    guard.watch({"a": NAN}, 4)
    with pytest.raises(
        FloatingPointError,
        match=r"^iteration 4: a not finite.*\(3 so far, max_skipped_updates=2\)$",
    ):
        guard.check()


def test_a_negative_number_of_faults_is_refused():
    with pytest.raises(ValueError, match="max_skipped_updates must be at least 0, got -1"):
        NonFiniteGuard(-1)


def test_low_precision_numbers_are_watched():
    assert bool(
        NonFiniteGuard().watch({"a": torch.tensor(1.0).bfloat16(), "b": torch.tensor(3)}, 1)
    )
