"""A run that is killed again and again ends as one that nobody disturbed, bit by bit: `make soak`,
or 3 kills here.

Instants are drawn: by the clock from the start on, or soon after a file of the run changed: its
log, a checkpoint that is being written, a manifest without its checkpoint, a checkpoint. Teacher
and references are the run's own, so that their making is disturbed as well.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, repeat
from pathlib import Path

import pytest
import torch

from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.checkpoints import load

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
ENV = os.environ | {"OMP_NUM_THREADS": "1", "DMD2_RUN_ID": "now"}


def files(run: str, pattern: str) -> set[tuple[Path, int]]:
    """The files of a run that match, with their sizes."""
    found = set()
    for path in Path(run).glob(pattern):
        with suppress(FileNotFoundError):  # it was there a moment ago
            found.add((path, path.stat().st_size))
    return found


def instant(run: str, draw: random.Random) -> Iterator[bool]:
    """Whether an instant of a life that begins now has come, as often as one asks."""
    pattern, left, end = (
        draw.choice(("clock", *WATCHED)),
        draw.randint(1, 4),
        time.monotonic() + draw.uniform(0, 20),
    )
    while pattern == "clock":
        yield time.monotonic() > end
    before = files(run, pattern)
    while left:
        yield False
        now = files(run, pattern)
        left, before = left - bool(now - before), now
    time.sleep(draw.uniform(0, 0.02))
    yield True


def live(run: str, come: Iterator[bool]) -> bool:
    """A life of a run until the instant has come; whether it was killed then, rather than come to
    its end.
    """
    command = [sys.executable, "-c", "from dmd2.cli.main import main; main()", "train", *RUN]
    with Path("stderr.txt").open("w+") as said:
        process = subprocess.Popen(
            [*command, f"paths.run={run}", f"paths.cache={run}-cache"], stderr=said, env=ENV
        )
        while process.poll() is None and not next(come):
            time.sleep(0.001)
        process.kill()
        code = process.wait()
        said.seek(0)
        text = said.read()
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
    monkeypatch.chdir(tmp_path)
    kills = request.config.getoption("kills")
    draw, left = random.Random(kills), kills
    live("whole", repeat(False))
    for number in count():
        run = f"run{number}"
        while left and live(run, instant(run, draw)):
            left -= 1
            print(f"{run}: killed, {left} to go")
        if not left:
            live(run, repeat(False))
        assert_same_end(run)
        if not left:
            return
