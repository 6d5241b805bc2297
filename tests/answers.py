"""What a command that is refused says, for tests of messages."""

import sys
from pathlib import Path

import pytest

from dmd2.cli.main import main


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, as a run called `now`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command is refused with: one message, though a list of choices may take lines."""
    sys.argv = ["dmd2", *arguments]
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("dmd2: ") == 1 and said.startswith("dmd2: "), said
    return said
