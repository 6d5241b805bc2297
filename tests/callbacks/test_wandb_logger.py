"""Weights & Biases, from a server that is not there."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dmd2.training.callbacks import CSVLogger
from dmd2.training.callbacks.wandb_logger import wandb_logger
from wandb_files import pages


def test_a_server_that_cannot_be_reached_costs_the_page_s_place_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is an optional extra")
    settings = {
        "BASE_URL": "http://127.0.0.1:9",
        "API_KEY": "0" * 40,
        "MODE": "online",
        "INIT_TIMEOUT": "2",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = wandb_logger("dmd2", "test", str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=1)
    logger.experiment.finish()
    wandb.teardown()
    assert "wandb cannot be reached" in capsys.readouterr().err
    page = (tmp_path / "wandb_id.txt").read_text()
    (life,) = (tmp_path / "wandb").glob("offline-run-*")
    assert life.name.endswith(f"-{page}") and list(life.glob("*.wandb"))


def test_offline_a_run_that_went_on_is_one_page_and_its_newest_piece_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is an optional extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "samples").mkdir()
    for resumed, first, last in ((None, 1, 4), (tmp_path, 3, 6)):
        log = CSVLogger(str(tmp_path / "metrics.csv"))
        page = wandb_logger("dmd2", "test", str(tmp_path))
        hint = capsys.readouterr().err.split("type: ")[1].split()
        for logger in (log, page):
            logger.begin({"seed": 0}, resumed, first - 1)
        for step in range(first, last):
            picture = tmp_path / "samples" / f"{step:08d}.png"
            Image.new("L", (2, 2), step).save(picture)
            for logger in (log, page):
                logger.log_metrics({"loss": step / 8}, step=step)
                logger.log_picture("samples/grid", picture, step)
        page.end(tmp_path)
        time.sleep(1.1)  # names of pieces are times in seconds
    wandb.teardown()
    first, second = pages(tmp_path)
    assert first.run_id == second.run_id
    steps = [[int(row["_step"]) for row in page.rows] for page in (first, second)]
    assert steps == [[1, 2, 3], [1, 2, 3, 4, 5]]
    assert [float(row["loss"]) for row in second.rows] == [i / 8 for i in range(1, 6)]
    assert all("samples/grid" in row and row["trainer/global_step"] for row in second.rows)
    newest = sorted((tmp_path / "wandb").glob("offline-run-*"))[-1]
    assert hint[:2] == ["wandb", "sync"] and Path(hint[2]).resolve() == newest
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", hint[2]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 run(s)" in shown.stdout + shown.stderr and first.run_id in shown.stdout + shown.stderr
