"""The benchmark of a training iteration: an experiment's own parts run; how fast is no test's business."""

import sys

import pytest

from dmd2 import cli

SMALL = ["part.num_cold=0", "part.num_rounds=1", "part.experiment=digits_dmd2", "part.trainer=cpu"]


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    sys.argv = ["dmd2", "benchmark", "part=iteration", *SMALL, *arguments]
    cli.main()
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_both_kinds_of_iteration_have_a_row(capsys):
    lines = measured(capsys, "part.batch_size=4")
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows == ["| iteration", "| of generator and critic", "| of the critic alone", "| mean of 5"]
    assert "4 images a device" in lines[-2] and "2,000 iterations" in lines[-2]


def test_what_cannot_be_made_up_is_refused(capsys):
    for arguments in (["source=images"], ["part.experiment=digits_dmd"]):
        with pytest.raises(SystemExit):
            measured(capsys, *arguments)
    assert "needs pairs" in capsys.readouterr().err
