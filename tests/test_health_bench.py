"""The bench of the health checks: faults are faults, cases compose, counts are right."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dmd2.data.digits import Digits
from dmd2.evaluation.health import CHECKS, Verdict
from dmd2.training.ema import EMA

BENCH = Path(__file__).parents[1] / "experiments" / "health"
COMMON = {"batch_size": 4, "seed": 0}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the bench adds its own folder
    return runpy.run_path(str(BENCH / "bench.py"))


def test_every_fault_is_named_by_checks_that_there_are(bench: dict[str, Any]) -> None:
    checks = {check.name for check in CHECKS}
    for name, case in bench["CASES"].items():
        assert case.named <= checks and bool(case.named) != name.startswith("healthy")
        assert case.experiment in bench["SHORT"]


@pytest.mark.parametrize("name", ["healthy text, v", "float16 average", "labels shuffled"])
def test_cases_compose(name: str, bench: dict[str, Any]) -> None:
    case = bench["CASES"][name]
    short = bench["SHORT"][case.experiment].split()
    typed = [*short, *case.overrides.format(teacher="a.safetensors").split()]
    config = bench["composed"](f"experiment={case.experiment}", *typed, "paths.run=none")
    assert config["max_iterations"] <= bench["tenth"](case.experiment) * 10


def test_faults_change_what_they_say_and_nothing_else() -> None:
    faults = runpy.run_path(str(BENCH / "faults.py"))
    whole, _, names = Digits(**COMMON).load()
    shuffled, _, _ = faults["ShuffledLabels"](**COMMON).load()
    assert (shuffled.x == whole.x).all()
    assert sorted(shuffled.labels) == sorted(whole.labels)
    assert (shuffled.labels == whole.labels).mean() < 0.2
    without, _, still = faults["TwoClassesGone"](**COMMON).load()
    assert set(range(10)) - set(without.labels) == {3, 8} and still == names
    tenth, _, _ = faults["TenthOfData"](**COMMON).load()
    assert len(tenth) == -(-len(whole) // 10)


def test_float16_averages_are_rounded() -> None:
    faults = runpy.run_path(str(BENCH / "faults.py"))
    module = torch.nn.Module()
    module.ema = EMA(torch.nn.Linear(3, 3), [0.9])
    faults["Float16Averages"]().on_train_batch_end(None, module)
    assert all((w == w.half().float()).all() for w in module.parameters())


def test_counts(bench: dict[str, Any]) -> None:
    late = [Verdict("drifting", 100), Verdict("critic_slow", 250), Verdict("not_finite", 260)]
    found = {
        ("critic_updates=1", 0): [Verdict("critic_slow", 50)],
        ("critic_updates=1", 1): late,
        ("float16 overflows", 0): late,  # the third verdict comes too late
        ("healthy toy2d", 0): [],
        ("healthy toy2d", 1): [Verdict("drifting", 100, 150)],
    }
    assert bench["table"](found)[2:] == [
        "| healthy toy2d | 1 of 2 |  | drifting at 100 (1x) |",
        "| critic_updates=1 | 2 of 2 | 50, 250 | drifting at 100 (1x) |",
        "| float16 overflows | 0 of 1 | not | critic_slow at 250 (1x), drifting at 100 (1x) |",
    ]
    assert bench["figures"](found) == [
        "* faults named: 2 of 3",
        "* named before a tenth of the whole run: 1 of 3",
        "* healthy runs alarmed: 1 of 2",
    ]
