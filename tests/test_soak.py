"""A verb that is killed again and again ends as one that nobody disturbed, bit by bit: `make soak`,
with `VERB=evaluate` another than train, or 3 kills of train and one of each other here.

Instants are drawn: by the clock from the start on, or soon after a file changed, of a run its log,
a checkpoint that is being written, a manifest without its checkpoint, a checkpoint. Teacher and
references of a run are its own, so that their making is disturbed as well. Verbs whose ranks share
the work are killed alone and as two ranks, of which one is killed and the other told to end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path

import pytest
import torch

from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.checkpoints import load
from lives import Life, instant, lives
from verbs import VERBS, Verb, place_for

RUN = [
    "experiment=toy2d_dmd2",
    "teacher.pretrain.max_iterations=5",
    "teacher.pretrain.data.batch_size=8",
    "max_iterations=60",
    "metric.num_samples=40",
    "metric.batch_size=20",
    "metric.teacher_steps=[1]",
    "callbacks.evaluation.every=20",
    "callbacks.samples.every=60",
    "callbacks.progress=null",
    "log_every=2",
    "checkpoint.every=3",
    "checkpoint.keep=2",
    "data.batch_size=8",
    "+data.num_workers=1",
    "+data.num_train=500",
    "+data.num_test=100",
    "resume=auto",
]
WATCHED = ("metrics.csv", "checkpoints/*.partial", "checkpoints/*.json", "checkpoints/*.ckpt")
NOW = {"DMD2_RUN_ID": "now"}


def typed(run: str) -> list[str]:
    """The command for a run, without `dmd2`."""
    return ["train", *RUN, f"paths.run={run}", f"paths.cache={run}-cache"]


def leave_alone(run: str) -> None:
    """A run that nobody disturbs, in an interpreter of its own."""
    command = [sys.executable, "-c", "from dmd2.cli.main import main; main()", *typed(run)]
    env = os.environ | NOW | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr


def live(run: str, come: Iterator[bool]) -> bool:
    """A life of a run until the instant has come; whether it was killed then, rather than come to
    its end.
    """
    life = Life(Path(f"{run}.txt"), *typed(run), env=NOW)
    while life.poll() is None and not next(come):
        time.sleep(0.001)
    life.kill()
    code, text = life.end()
    assert code in (0, -signal.SIGKILL), text
    assert "damaged" not in text
    return code != 0


def log(run: str) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what a clock says."""
    rows = read_rows(Path(run, "metrics.csv"))
    return [
        {key: value for key, value in row.items() if not key.startswith("speed/")} for row in rows
    ]


def assert_same_end(run: str) -> None:
    """All that a run leaves is what the undisturbed one left: weights, optimizers, scores, log,
    files.
    """
    ours, whole = (load(Path(name, "checkpoints", "00000060.ckpt")) for name in (run, "whole"))
    assert ours.keys() == whole.keys()
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        torch.testing.assert_close(ours[part], whole[part], rtol=0, atol=0)
    assert log(run) == log("whole")
    ours, whole = (json.loads(Path(name, "summary.json").read_text()) for name in (run, "whole"))
    for key in ("status", "iterations", "generator_updates", "students", "best"):
        assert ours[key] == whole[key], key
    ours, whole = (
        sorted(p.relative_to(name) for p in Path(name).rglob("*")) for name in (run, "whole")
    )
    assert ours == whole


@pytest.mark.slow
@pytest.mark.timeout(0)  # it takes as long as it is asked to
def test_a_run_killed_again_and_again_ends_as_if_nobody_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("verb") not in (None, "train"):
        pytest.skip("another verb was asked for")
    monkeypatch.chdir(tmp_path)
    kills = request.config.getoption("kills")
    draw, left = random.Random(kills), kills
    leave_alone("whole")
    begin = time.monotonic()
    live("fork", repeat(False))
    seconds = time.monotonic() - begin
    assert_same_end("fork")
    for number in count():
        run = f"run{number}"
        while left and live(run, instant(Path(run), WATCHED, seconds, draw)):
            left -= 1
            print(f"{run}: killed, {left} to go")
        if not left:
            live(run, repeat(False))
        assert_same_end(run)
        if not left:
            return


def end_or_kill(
    verb: Verb, place: Path, trained: Path, num: int, come: Iterator[bool], draw: random.Random
) -> bool:
    """A life of a verb until the instant has come; whether it was killed then, rather than come to
    its end.
    """
    processes = lives(place.with_suffix(".txt"), num, *verb.typed(place, trained, num))
    while any(process.poll() is None for process in processes) and not next(come):
        time.sleep(0.01)
    draw.choice(processes).send(signal.SIGKILL)
    for process in processes:  # as torchrun does
        process.send(signal.SIGTERM)
    ends = [process.end() for process in processes]
    if not any(code for code, _ in ends):
        return False
    # Killed between its last file and its exit: the output is there, and is not written over.
    if all("is not empty; name another folder: out=DIR" in text for _, text in ends):
        assert [(code, text.count("\n")) for code, text in ends] == [(2, 1)]
        return False
    assert all(code in (0, 130, -signal.SIGKILL, -signal.SIGTERM) for code, _ in ends), ends
    return True


@pytest.mark.slow
@pytest.mark.timeout(0)  # it takes as long as it is asked to
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_killed_again_and_again_ends_as_if_nobody_had(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = request.config.getoption("verb")
    if asked not in (None, name):
        pytest.skip("another verb was asked for")
    trained: Path = request.getfixturevalue("trained")
    verb, kills = VERBS[name], request.config.getoption("kills") if asked else 1
    draw, left = random.Random(kills), kills
    undisturbed, seconds = dict[int, dict[str, bytes]](), 0.0
    for num in (1, 2) if verb.is_shared else (1,):
        whole, begin = place_for(name, tmp_path / f"whole{num}", trained), time.monotonic()
        assert not end_or_kill(verb, whole, trained, num, repeat(False), draw)
        undisturbed[num], seconds = verb.made(whole), time.monotonic() - begin
    for number in count():
        place, num = place_for(name, tmp_path / str(number), trained), draw.choice([*undisturbed])
        while left:
            come = instant(place, ("**/*", "**/*"), seconds, draw)
            if not end_or_kill(verb, place, trained, num, come, draw):
                break
            left -= 1
            verb.check_whole(place, undisturbed[num])
            print(f"{number}: {num} killed, {left} to go")
        if not left:
            end_or_kill(verb, place, trained, num, repeat(False), draw)
        assert verb.made(place) == undisturbed[num]
        if not left:
            return
