"""The benchmark of generation: teacher and student of a run are both there; how fast is no test's business."""

import sys
from pathlib import Path

import pytest

from dmd2 import cli

SMALL = ["part.num_steps=3", "part.num_cold=0", "part.num_repeats=1", "part.batch_size=2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def dmd2(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sys.argv = ["dmd2", *arguments]
    cli.main()
    return capsys.readouterr().out


def test_a_configuration_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    config = dmd2(capsys, "train", "--cfg", "job", "--resolve", "sampler=four_step", "teacher.guidance=2.0")
    Path("config.yaml").write_text(config)
    lines = dmd2(capsys, "benchmark", "part=generation", "source=.", *SMALL).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| teacher, guidance 2", "3"], ["| student", "4"]]
    assert "2 at once, float32; the student is" in lines[-1]


def test_a_run_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dmd2(capsys, "benchmark", "part=generation")
    assert "type source=runs/EXPERIMENT/latest" in capsys.readouterr().err
