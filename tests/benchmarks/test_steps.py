"""The benchmark of steps: a row for what each step of a student makes, the last as the run was
scored.
"""

import json
import sys
from pathlib import Path

import pytest

from dmd2.benchmarks.steps import mixed
from dmd2.cli.main import main

TINY = [
    "experiment=toy2d_dmd2",
    "critic_step_layer=embed",
    "max_iterations=2",
    "data.batch_size=8",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=40",
    "metric.teacher_steps=[1]",
    "paths.run=run",
]


def dmd2(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sys.argv = ["dmd2", *arguments]
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["four_step", "four_step_ode"])
def test_each_step_of_a_student_is_scored(
    sampler: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    dmd2(capsys, "train", *TINY, f"sampler={sampler}")
    head, _, *rows = dmd2(capsys, "benchmark", "part=steps", "source=run").splitlines()
    assert [row.split(" | ")[0] for row in rows] == [
        "| t = 1",
        "| t = 0.75",
        "| t = 0.5",
        "| t = 0.25",
        "| together",
    ]
    assert head.split(" | ")[2] == "sliced_wasserstein", "the primary score first"
    scored = json.loads(Path("run/summary.json").read_text())["metrics"]
    last = dict(zip(head.strip("| ").split(" | "), rows[3].strip("| ").split(" | "), strict=True))
    assert {name: float(last[name]) for name in scored} == pytest.approx(scored, rel=5e-3)


@pytest.mark.parametrize("num", [100, 120])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 8, 10, 120])
def test_the_mixture_has_all_steps_alike_and_of_every_class(num: int, num_classes: int) -> None:
    num_steps = 4
    step = mixed(num, num_classes, num_steps)
    counts = step.bincount(minlength=num_steps)
    assert counts.max() - counts.min() <= 2
    for label in range(min(num, num_classes)):
        own = step[label::num_classes]
        assert len(own.unique()) == min(len(own), num_steps)
