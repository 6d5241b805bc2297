"""A class or caption that does not exist is said in a line that names what exists."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

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


def test_a_folder_holds_the_samples_of_one_set(capsys: pytest.CaptureFixture[str]) -> None:
    for num in (3, 3, 4):  # the same command goes on, and more are added
        sys.argv = ["dmd2", "sample", "run=run", f"num_images={num}", "out=some"]
        main()
    capsys.readouterr()
    for other in (["num_images=4", "seed=1"], ["num_images=2"], ["num_images=4", "label=1"]):
        line = answer(capsys, "sample", "run=run", "out=some", *other)
        assert "some holds other samples" in line and "out=DIR" in line
    assert len(list(Path("some").glob("0*.png"))) == 4
    line = answer(capsys, "sample", "run=run", "num_images=100000000000", "out=many")
    assert "num_images=100,000,000,000 files do not fit" in line and not Path("many").exists()


def test_a_student_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    shutil.copytree("run", tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    for weights in (None, str(path)):
        with pytest.raises(ValueError, match=r"student.safetensors is damaged"):
            dmd2.load(tmp_path / "run", weights)


def test_a_run_whose_configuration_lacks_a_key_is_named(tmp_path: Path) -> None:
    shutil.copytree("run", tmp_path / "run")
    config = OmegaConf.load("run/config.yaml")
    del config.data.batch_size
    OmegaConf.save(config, tmp_path / "run" / "config.yaml")
    with pytest.raises(ValueError, match=r"config.yaml is damaged: it lacks data.batch_size"):
        dmd2.load(tmp_path / "run")


def test_a_label_of_another_kind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "label must be a whole number" in answer(capsys, "sample", "run=run", "label=seven")


def test_a_caption_that_does_not_exist_is_said() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: EXTRAS=dev,text")
    encoder = tiny_clip(["a", "zero", "one"], hidden_size=16, num_layers=2, max_length=8, seed=0)
    conditioner = Prompts(["a zero", "a one"], encoder, "empty")
    for label in (-1, 2):
        with pytest.raises(ValueError, match=f"no label {label}: the captions are 0 to 1"):
            conditioner(torch.tensor([0, label]))
