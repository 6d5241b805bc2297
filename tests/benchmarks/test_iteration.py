"""The benchmark of a training iteration: an experiment's own parts run; how fast is no test's
business.
"""

import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from dmd2.benchmarks.iteration import parts
from dmd2.benchmarks.timer import by_kind
from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from pipelines import shrunken

SMALL = ["part.num_cold=0", "part.num_rounds=1", "part.experiment=digits_dmd2", "part.trainer=cpu"]


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    sys.argv = ["dmd2", "benchmark", "part=iteration", *SMALL, *arguments]
    main()
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_both_kinds_of_iteration_have_a_row(capsys):
    lines = measured(capsys, "part.batch_size=4")
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows == [
        "| iteration",
        "| of generator and critic",
        "| of the critic alone",
        "| mean of 5",
    ]
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| of")]
    both, alone = ([float(cell.replace(",", "")) for cell in row[3:]] for row in cells)
    assert both[0] > alone[0] > 100  # operations
    # Teacher, generator, critic, an average and four moments of 0.25 M float32 numbers at least.
    assert 0.05 > both[1] >= alone[1] > 0.004
    assert "4 images a device" in lines[-2] and "2,000 iterations" in lines[-2]


def test_the_mean_iteration_of_a_round():
    assert by_kind([5.0, 1.0, 2.0, 7.0, 3.0, 4.0], 3) == [6.0, 2.5, (6 + 2 * 2.5) / 3]
    assert by_kind([5.0, 7.0], 1) == [6.0, 6.0]


def test_a_text_teacher_s_need_no_files(capsys):
    few = ["part.batch_size=2", 'part.overrides=["critic_updates=2"]']
    lines = measured(capsys, "part.experiment=text2digits_dmd2", *few)
    assert "| mean of 2 |" in "\n".join(lines) and "embeddings of prompts are random" in lines[-1]


@pytest.mark.parametrize("experiment", ["sd15_dmd2_gan", "sdxl_dmd2_4step", "sdxl_dmd2_4step_lora"])
def test_published_recipes_are_measured_in_their_own_shapes_and_dtypes(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    sized = ["trainer=cpu", "global_batch=null", "data.batch_size=2", *shrunken(experiment[:4])]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = resolved(compose("train", overrides=[f"experiment={experiment}", *sized]))
    module, data = parts(config, tmp_path)
    assert (
        data.shape == (4, 8, 8)
        and module.models.teacher.model.conv_in.weight.dtype == torch.bfloat16
    )
    assert {weight.dtype for weight in module.generator.parameters() if weight.requires_grad} == {
        torch.float32
    }
    cond = module.models.conditioner(torch.tensor([0, 7]))
    assert cond["text"].shape == (2, 77, 32 if "sdxl" in experiment else 16)
    assert ("pooled" in cond) == ("sdxl" in experiment) and cond.get("pooled", cond["text"])[
        0
    ].std() > 0.5
    with torch.no_grad():
        assert module.models.teacher(
            torch.randn(2, 4, 8, 8), torch.tensor([0.5, 0.9]), cond
        ).shape == (2, 4, 8, 8)


def test_what_cannot_be_made_up_is_refused(capsys):
    for arguments in (["source=images"], ["part.experiment=digits_dmd"]):
        with pytest.raises(SystemExit):
            measured(capsys, *arguments)
    assert "needs pairs" in capsys.readouterr().err
