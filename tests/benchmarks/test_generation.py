"""The benchmark of generation: teacher and student of a run are both there; how fast is no test's
business.
"""

import sys
from pathlib import Path

import pytest
from torch.nn.modules.module import register_module_forward_hook

from dmd2.cli.main import main

SMALL = ["part.num_steps=3", "part.num_cold=0", "part.num_repeats=1", "part.batch_size=2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def dmd2(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sys.argv = ["dmd2", *arguments]
    main()
    return capsys.readouterr().out


def test_a_configuration_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    config = dmd2(
        capsys, "train", "--cfg", "job", "--resolve", "sampler=four_step", "teacher.guidance=2.0"
    )
    Path("config.yaml").write_text(config)
    lines = dmd2(capsys, "benchmark", "part=generation", "source=.", *SMALL).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [
        ["| teacher, guidance 2", "3"],
        ["| student", "4"],
    ]
    assert "2 at once, float32; the student is" in lines[-1]


def test_the_teacher_is_timed_without_the_student_s_lora(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")
    pytest.importorskip("peft", reason="peft is not installed: pip install '.[text]'")
    short = [
        "max_iterations=1",
        "callbacks.samples=null",
        "callbacks.evaluation=null",
        "paths.run=run",
    ]
    short += [
        "metric=none",
        "teacher.pretrain.max_iterations=1",
        "lora.generator.targets=[to_q,to_k]",
    ]
    dmd2(capsys, "train", "experiment=text2digits_dmd2_4step_lora", *short)
    adapted: list[object] = []
    hook = register_module_forward_hook(
        lambda layer, *_: adapted.append(layer) if hasattr(layer, "lora_A") else None
    )
    try:
        dmd2(capsys, "benchmark", "part=generation", "source=run", *SMALL)
    finally:
        hook.remove()
    assert (
        len(adapted) == 4 * len(set(adapted)) > 0
    )  # the student's four steps, and none of the teacher's


def test_a_run_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dmd2(capsys, "benchmark", "part=generation")
    assert "type source=runs/EXPERIMENT/latest" in capsys.readouterr().err
