"""The watch over non-finite numbers: who was first, and when."""

import pytest
import torch

from dmd2.training.nonfinite import Faults

ONE, NAN, INF = (torch.tensor(x) for x in (1.0, float("nan"), float("inf")))


def test_finite_numbers_pass():
    faults = Faults()
    assert bool(faults.watch({"a": ONE, "b": ONE}, 1))
    faults.check()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_number_makes_the_whole_watch_bad(bad):
    assert not bool(Faults().watch({"a": ONE, "b": bad}, 1))


def test_the_earliest_fault_is_named_and_only_it():
    faults = Faults()
    faults.watch({"critic/a": ONE}, 1)
    faults.watch({"critic/a": NAN}, 7)
    faults.watch({"generator/b": INF, "generator/c": ONE}, 6)
    faults.watch({"generator/b": ONE, "generator/c": NAN}, 8)
    with pytest.raises(FloatingPointError, match=r"^iteration 6: generator/b not finite; the step was not applied$"):
        faults.check()


def test_faults_of_one_iteration_are_named_together_and_stay():
    faults = Faults()
    faults.watch({"a": NAN, "b": ONE, "c": INF}, 3)
    faults.watch({"a": ONE, "b": ONE, "c": ONE}, 4)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="iteration 3: a, c not finite"):
            faults.check()


def test_allowed_faults_are_said_and_counted_and_one_more_is_too_many(capsys):
    faults = Faults(allowed=2)
    for iteration, number in enumerate((NAN, ONE, INF), 1):
        faults.watch({"a": number}, iteration)
        faults.check()
    assert faults.skipped == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": a not finite")[0] for line in told] == ["dmd2: iteration 1", "dmd2: iteration 3"]
    faults.watch({"a": NAN}, 4)
    with pytest.raises(FloatingPointError, match=r"^iteration 4: a not finite.*\(3 so far, max_faults=2\)$"):
        faults.check()


def test_a_negative_number_of_faults_is_refused():
    with pytest.raises(ValueError, match="max_faults must be at least 0, got -1"):
        Faults(-1)


def test_low_precision_numbers_are_watched():
    assert bool(Faults().watch({"a": torch.tensor(1.0).bfloat16(), "b": torch.tensor(3)}, 1))
