"""The published recipe on real photographs, small: prepared, distilled, scored again and sampled
from.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.io.tensors import save_tensors
from dmd2.runs.build import build

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "imagenet_sample" / "train"
SHRUNKEN = [
    "teacher.denoiser.model.model_channels=32",
    "teacher.denoiser.model.channel_mult=[1,1,1,2]",
    "teacher.denoiser.model.num_blocks=1",
    "teacher.denoiser.model.attn_resolutions=[8]",
    "teacher.denoiser.taps=[enc.8x8_block0]",
    "teacher.weights=teacher.safetensors",
]
"""ADM at its four resolutions, 64 to 8, and otherwise small."""
SCORED = [
    "metric=digits",
    "~metric.suite.metrics.nearest",
    "~metric.suite.detectors.classes",
    "~metric.suite.metrics.accuracy",
]
SHORT = [
    "trainer=cpu",
    "max_iterations=6",
    "global_batch=4",
    "log_every=1",
    "callbacks.samples.num_samples=20",
]
SCORED += ["metric.num_samples=20", "metric.num_reference=null", "metric.teacher_steps=[1]"]


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="no photographs in ../shared/data/imagenet_sample"
)
def test_from_photographs_to_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setattr(sys, "argv", sys.argv)
    experiment = ["experiment=imagenet64_dmd2", *SHRUNKEN, *SCORED, *SHORT]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = resolved(compose("train", overrides=experiment))
    teacher = build(config["teacher"]["denoiser"])
    save_tensors(teacher.state_dict(), Path("teacher.safetensors"))

    dmd2(
        "prepare",
        "recipe=imagenet64",
        "recipe.num_classes=100",
        f"source={PHOTOGRAPHS}",
        "out=data/imagenet64",
    )
    assert "100 images to train on" in capsys.readouterr().out
    dmd2("train", *experiment)
    run = Path("runs/imagenet64_dmd2/now")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["iterations"], summary["generator_updates"]) == (
        "completed",
        6,
        2,
    )

    dmd2("evaluate", f"run={run}")
    again = json.loads((run / "evaluation.json").read_text())
    assert again["metrics"]["rfd"] == pytest.approx(summary["metrics"]["rfd"], rel=1e-3)
    dmd2("sample", f"run={run}", "num_images=3", "out=samples")
    images = [
        np.asarray(Image.open(path))
        for path in sorted(Path("samples").glob("*.png"))
        if path.stem.isdigit()
    ]
    assert len(images) == 3 and all(image.shape == (64, 64, 3) for image in images)
