"""Progress bars: drawn over on a terminal, lines in a log file, of rank 0 alone."""

import hashlib
import os
import pty
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from dmd2.io import progress
from dmd2.io.hashed_tensors import digest
from dmd2.io.progress import hashed, progress_bar, reading, writing


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0)


def test_a_log_file_gets_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        progress_bar("outer", 2, unit=" samples", leave=True) as outer,
        progress_bar("inner", 2) as inner,
    ):
        for bar in (inner, outer, inner, outer):
            bar.update(1)
    said = capsys.readouterr().err
    assert said.isprintable() is False and not set("\r\x1b") & set(said)
    lines = said.splitlines()
    assert all(line.startswith(("outer: ", "inner: ")) for line in lines)
    assert "outer: 50 %, 1 of 2 in 00:00, 00:00 left" in said
    assert lines[-1].startswith("outer: 100 %, 2 of 2 in ")


def test_short_waits_and_other_ranks_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY", 2)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with progress_bar("short", 2) as bar:
            bar.update(2)
    with progress_bar("of another rank", 2, delay=0, leave=True) as bar:
        bar.update(2)
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        size = {"dynamic_ncols": False, "ncols": 80, "nrows": 24}  # which this terminal has not
        with progress_bar("work", 4, mininterval=0, **size) as bar:
            for _ in range(4):
                bar.update(1)
    said = b""
    with suppress(OSError):  # the end, as the other side is closed
        while part := os.read(ours, 10_000):
            said += part
    os.close(ours)
    assert b"\rwork:  50%|" in said and b"2/4 [00:00<00:00" in said


def test_a_hash_with_a_bar_is_the_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert hashed(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert "hashing file: " in capsys.readouterr().err


def test_what_torch_reads_and_hashes_has_bars_and_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name: torch.arange(300_000.0) for name in ("a", "b")}
    torch.save(tensors, tmp_path / "file")
    with reading(tmp_path / "file") as file:
        found = torch.load(file, weights_only=True)
    assert digest(found) == digest(tensors)
    said = capsys.readouterr().err
    assert "reading file: 100 %, 2.29M of 2.29M" in said
    assert "hashing weights: 50 %, 1.14M of 2.29M" in said


def test_a_file_or_folder_that_a_library_writes_has_a_bar_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY", 0.01)
    for place, file in ((tmp_path / "file",) * 2, (tmp_path / "folder", tmp_path / "folder/file")):
        file.parent.mkdir(exist_ok=True)
        with writing(place, place.name, 8):
            file.write_bytes(bytes(4))
            said = ""
            for _ in range(1000):  # what the library does takes so long
                said += capsys.readouterr().err
                if "50 %" in said:
                    break
                time.sleep(0.01)
        assert f"writing {place.name}: 50 %, 4.00 of 8.00 in " in said
    with pytest.raises(OSError, match="full"), writing(tmp_path / "other", "other", 8):
        raise OSError("full")
