"""Ranks that do not come are named within a minute, and nobody alone is asked for ranks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from answers import answer, inside  # noqa: F401 - a fixture
from dmd2.cli.main import main
from dmd2.distributed.rendezvous import JOIN_SECONDS

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "DMD2_JOIN_SECONDS")

pytestmark = pytest.mark.usefixtures("inside")


@pytest.fixture
def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def variables(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


def set_ranks(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables(text).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("RANK=abc WORLD_SIZE=2", ["RANK=abc", "a whole number"]),
        ("RANK=-1 WORLD_SIZE=2", ["RANK=-1", "a whole number"]),
        ("RANK=0 WORLD_SIZE=two", ["WORLD_SIZE=two", "a whole number"]),
        ("RANK=2 WORLD_SIZE=2", ["RANK=2 and WORLD_SIZE=2", "0 to 1"]),
        ("RANK=1 WORLD_SIZE=2", ["MASTER_PORT is not", "torchrun"]),
        ("RANK=1 WORLD_SIZE=2 MASTER_PORT=1", ["MASTER_ADDR is not", "torchrun"]),
        ("RANK=1 WORLD_SIZE=2 MASTER_PORT=x", ["MASTER_PORT=x"]),
        ("RANK=1 WORLD_SIZE=2 MASTER_PORT=70000", ["MASTER_PORT=70000 is no port"]),
        (
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=1 DMD2_JOIN_SECONDS=soon",
            ["DMD2_JOIN_SECONDS=soon"],
        ),
        (
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=nowhere.invalid MASTER_PORT=1 DMD2_JOIN_SECONDS=1",
            ["for rank 0", "nowhere.invalid:1", "MASTER_ADDR"],
        ),
    ],
)
def test_an_environment_that_makes_no_sense_is_said_in_a_line(
    environment: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_ranks(monkeypatch, environment)
    line = answer(capsys, "train", *TWO)
    assert (line.count("\n") == 1 and "unset WORLD_SIZE RANK" in line) or "no port" in line, line
    assert all(word in line for word in words), line
    assert not [path for path in Path().rglob("*") if path.is_file()]


@pytest.mark.parametrize("verb", ["train", "prepare"])
def test_a_process_alone_names_who_is_missing(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: str
) -> None:
    assert JOIN_SECONDS < 60
    own = f"RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT={free_port} DMD2_JOIN_SECONDS=1"
    set_ranks(monkeypatch, own)
    arguments = {"train": TWO, "prepare": ["recipe=imagenet64", "source=x", "out=y"]}
    line = answer(capsys, verb, *arguments[verb])
    assert "has waited 1 s for rank 1 (1 missing)" in line and "unset WORLD_SIZE RANK" in line


def test_of_four_ranks_those_two_are_named_that_did_not_come(free_port: str) -> None:
    shared = f"WORLD_SIZE=4 MASTER_ADDR=localhost MASTER_PORT={free_port} DMD2_JOIN_SECONDS=20"
    code = "from dmd2.distributed.rendezvous import meet; meet()"
    here = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | variables(f"{shared} RANK={rank}"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 2)
    ]
    texts = [process.communicate(timeout=600)[1] for process in here]
    assert "rank 0 of 4 has waited 20 s for rank 1, 3 (2 missing)" in texts[0]
    # Whose time is over first ends first, and rank 0 takes the store along.
    assert "for rank 1, 3 (2 missing)" in texts[1] or "has lost rank 0" in texts[1]


def test_processes_that_the_trainer_does_not_want_are_said_before_anybody_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_ranks(monkeypatch, "RANK=0 WORLD_SIZE=2")
    line = answer(capsys, "train")
    assert "WORLD_SIZE=2" in line and "trainer.devices=1" in line and "unset WORLD_SIZE" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "runs=."], "no completed run"),
        (["import", "source=gone", "out=x.safetensors"], "there is no file gone"),
        (["export", "run=gone", "out=x"], "there is no run"),
        (["benchmark", "part=loader", "source=gone"], "resolution"),
    ],
)
@pytest.mark.parametrize("rank", ["1", "abc"])
def test_what_one_process_does_asks_for_no_ranks(
    arguments: list[str],
    words: str,
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_ranks(monkeypatch, f"RANK={rank} WORLD_SIZE=2")
    assert words in answer(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["train", "--choices", "loss"], ["train", "--cfg", "job"]],
    ids=" ".join,
)
def test_what_only_shows_words_asks_for_no_ranks(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_ranks(monkeypatch, "RANK=abc WORLD_SIZE=2")
    sys.argv = ["dmd2", *arguments]
    main()
    assert capsys.readouterr().out


def test_a_rank_that_was_left_in_the_environment_of_one_process_is_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_ranks(monkeypatch, "RANK=1 LOCAL_RANK=x WORLD_SIZE=1")
    short = ["experiment=toy2d_dmd2", "max_iterations=1", "data.batch_size=8", "metric=none"]
    sys.argv = ["dmd2", "train", *short, "teacher.pretrain.max_iterations=1", "log_every=1"]
    main()
    (log,) = Path("runs").glob("*/now/metrics.csv")
    assert log.read_text().count("\n") == 2
