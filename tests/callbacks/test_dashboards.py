"""What TensorBoard and W&B are told of a run, read back from their files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmd2.cli.main import main
from dmd2.training.callbacks.csv_logger import history
from wandb_files import pages

ARGUMENTS = [
    "experiment=toy2d_dmd2",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=50",
    "metric.teacher_steps=[1]",
    "data.batch_size=16",
    "log_every=1",
    "checkpoint.every=2",
    "callbacks.evaluation.every=3",
    "callbacks.samples.every=2",
    "paths.run=run",
    "logger=tensorboard",
    "+logger.wandb._target_=dmd2.training.callbacks.wandb_logger.wandb_logger",
    "+logger.wandb.project=test",
    "+logger.wandb.group=test",
    "+logger.wandb.save_dir=run",
]

RESUME = ["resume=auto", "resume_allow=[max_iterations,optimizer.lr_factor.max_iterations]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five iterations that went on at the second one, of which a part came twice."""
    pytest.importorskip("tensorboard", reason="tensorboard is an optional extra")
    wandb = pytest.importorskip("wandb", reason="wandb is an optional extra")
    folder = tmp_path_factory.mktemp("dashboards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        for given in (["max_iterations=3"], ["max_iterations=5", *RESUME]):
            patch.setattr(sys, "argv", ["dmd2", "train", *ARGUMENTS, *given])
            main()
            # As if a kill had come before the last checkpoint.
            (folder / "run" / "checkpoints" / "00000003.ckpt").unlink(missing_ok=True)
    wandb.teardown()
    return folder / "run"


def test_tensorboard_has_the_numbers_and_grids_once_and_at_their_iterations(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    told = {
        (key, one.step): one.value
        for key in events.Tags()["scalars"]
        for one in events.Scalars(key)
    }
    assert len(told) == sum(len(events.Scalars(key)) for key in events.Tags()["scalars"])
    logged = {
        (key, step): float(np.float32(value))  # of a scalar there is no more
        for step, numbers, _ in history(run, 5)
        for key, value in numbers.items()
    }
    assert told == pytest.approx(logged, abs=0, rel=0, nan_ok=True)
    shown = {one.step: one.encoded_image_string for one in events.Images("samples/grid")}
    assert sorted(shown) == [2, 4, 5]
    last = run / "samples" / "00000005.png"
    (run / "shown.png").write_bytes(shown[5])
    assert np.array_equal(Image.open(run / "shown.png"), Image.open(last).convert("RGB"))
    texts = events.Tags()["tensors"]
    assert {"config/text_summary", "references/text_summary"} <= set(texts)


def test_wandb_has_the_numbers_references_alerts_and_the_page(run: Path) -> None:
    page = pages(run)[-1]
    told = {
        (key, int(row["_step"])): float(text)
        for row in page.rows
        for key, text in row.items()
        if "/" in key and key not in ("trainer/global_step", "samples/grid")
    }
    logged = {(k, step): v for step, numbers, _ in history(run, 5) for k, v in numbers.items()}
    assert told == pytest.approx(logged, abs=0, rel=0, nan_ok=True)
    assert [int(r["_step"]) for r in page.rows if "samples/grid" in r] == [2, 4, 5]
    summary = json.loads((run / "summary.json").read_text())
    for score, value in summary["teacher"]["1"].items():
        assert page.summary[f"reference/teacher/1/{score}"] == value
    assert "health: teacher_bad" in pages(run)[0].alerts  # after two iterations
    assert {"report.html", "summary.json"} <= page.files
