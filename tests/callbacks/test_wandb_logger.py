"""Weights & Biases, from a server that is not there."""

from pathlib import Path

import pytest

from dmd2.training.callbacks.wandb_logger import wandb_logger


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
