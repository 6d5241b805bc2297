"""A class or caption that does not exist is said in a line that names what exists."""

import sys
from pathlib import Path

import pytest
import torch

import dmd2
from answers import answer
from dmd2.cli.main import main
from dmd2.diffusion.conditioning import ClassLabels
from dmd2.nets.text.prompts import Prompts
from dmd2.nets.text.tiny import tiny_clip

RUN = [
    *("experiment=digits_dmd2", "max_iterations=1", "data.batch_size=8", "metric=none"),
    *("teacher.pretrain.max_iterations=1", "callbacks.samples=null", "paths.run=run"),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["dmd2", "train", *RUN])
        main()
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("label", [-1, 10, 99])
def test_a_class_that_does_not_exist_is_said(
    label: int, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(capsys, "sample", "run=run", f"label={label}", "num_images=2")
    assert f"there is no label {label}: the classes are 0 to 9" in line and line.count("\n") == 1
    assert not Path("samples").exists()
    with pytest.raises(ValueError, match=f"no label {label}: the classes are 0 to 9"):
        dmd2.load("run").sample(2, label=label)
    with pytest.raises(ValueError, match=f"no label {label}: the classes are 0 to 9"):
        ClassLabels(10)(torch.tensor([3, label]))


def test_one_class_is_drawn_where_it_is_asked_for() -> None:
    student = dmd2.load("run")
    assert student.sample_set(0, 3).labels(range(2, 5)).tolist() == [3, 3, 3]
    # The noise is that of the sample's number, whatever its class.
    assert torch.equal(student.sample(4, label=3)[3], student.sample(4)[3])
    sys.argv = ["dmd2", "sample", "run=run", "label=3", "num_images=2", "out=threes"]
    main()
    assert len(list(Path("threes").glob("0*.png"))) == 2


def test_a_label_of_another_kind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "label must be a whole number" in answer(capsys, "sample", "run=run", "label=seven")


def test_a_caption_that_does_not_exist_is_said() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: EXTRAS=dev,text")
    encoder = tiny_clip(["a", "zero", "one"], hidden_size=16, num_layers=2, max_length=8, seed=0)
    conditioner = Prompts(["a zero", "a one"], encoder, "empty")
    for label in (-1, 2):
        with pytest.raises(ValueError, match=f"no label {label}: the captions are 0 to 1"):
            conditioner(torch.tensor([0, label]))
