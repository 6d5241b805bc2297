"""The scripts of experiments/style_lora, small: a teacher is tuned by LoRA to slanted digits, and
its student distilled from few of them.
"""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from dmd2.cli.main import main
from dmd2.io.tensors import read_tensors
from dmd2.nets.lora_files import read_lora

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")
pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

SCRIPTS = Path(__file__).parents[1] / "experiments" / "style_lora"
TEACHER = ["experiment=text2digits_dmd2", "teacher=text_digits_flow", "sampler=one_step"]
STYLE = ["data=slanted_digits", "lora=generator", "lora.generator.rank=2", "data.batch_size=4"]
SMALL = [
    "max_iterations=1",
    "critic_updates=1",
    "metric.num_samples=20",
    "metric.num_reference=40",
    "metric.teacher_steps=[]",
    "metric.baselines={}",
    "~metric.suite.metrics.accuracy",
    "~metric.suite.detectors.classes",
    "callbacks.samples=null",
    "callbacks.progress=null",
    "paths.run=run",
]


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def script(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def test_a_style_is_tuned_distilled_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    dmd2("pretrain", *TEACHER, "teacher.pretrain.max_iterations=1")
    (weights,) = Path("cache/teachers").glob("*.safetensors")
    plain = weights.read_bytes()
    given = [*TEACHER, *STYLE, f"teacher.weights={weights}"]
    script("tune.py", "style.safetensors", *given, "teacher.pretrain.max_iterations=2")
    assert weights.read_bytes() == plain
    # B begins at zero: what is not has been trained.
    style = read_lora(Path("style.safetensors")).network
    assert len(style) > 20 and any(factors.b.any() for factors in style.values())

    loras = "+teacher.loras=[{source:style.safetensors,scale:1.0}]"
    dmd2("train", *given, loras, "data.num_images=50", *SMALL)
    capsys.readouterr()
    script("slant.py", "run")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["student", "its data"]
    # The ink of the digits has a slant of -.04, and the shear adds .5, less what leaves the image.
    assert 0.40 < float(lines[1].split()[3]) < 0.47
    # A LoRA of one teacher loads on another of the same layers, here on the plain one.
    assert all(
        "lora_" in name for name in read_tensors(Path("run/checkpoints/student.safetensors"))
    )


def test_shear_adds_to_the_slant() -> None:
    slant = runpy.run_path(str(SCRIPTS / "slant.py"))["slant"]
    bar = torch.zeros(1, 1, 9, 9)
    bar[..., 2:7, 4] = 1.0  # upright
    stairs = torch.zeros(1, 1, 9, 9)
    for i in range(5):
        stairs[..., 6 - i, 2 + i] = 1.0  # a pixel to the right for each row upwards
    torch.testing.assert_close(slant(torch.cat([bar, stairs])), torch.tensor([0.0, 1.0]).double())
