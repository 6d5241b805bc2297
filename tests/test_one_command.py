"""The experiments of one command, small, from end to end: a pipeline with captions (`distil`), and
a folder of images (`images`); and samples of what somebody asks for.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

import dmd2
from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.data.captions import texts_of
from dmd2.diffusion.sampling import ODEWalk
from dmd2.evaluation.prompt_grid import TEXT_WIDTH, prompt_grid
from dmd2.nets.pipeline_families import FAMILIES
from dmd2.nets.pipeline_recipe import recipe_of
from dmd2.runs.build import build

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[text]'")
pytest.importorskip("peft", reason="peft is not installed: pip install '.[text]'")

from families import SIZES, save_family
from pipelines import save_pipeline

SMALL = ["trainer=cpu", "max_iterations=2", "log_every=1"]
TRAINED = [
    *SMALL,
    "data.batch_size=4",
    "teacher.pretrain.max_iterations=1",
    "teacher.pretrain.data.batch_size=4",
    "teacher.denoiser.model.model_channels=32",
    "teacher.denoiser.model.num_blocks=2",
    "metric.num_samples=20",
    "metric.teacher_steps=[1]",
    "callbacks.samples.num_samples=20",
]


@pytest.fixture(autouse=True)
def folder(captioned: Path) -> Path:
    """A directory with ten captions."""
    return captioned


def dmd2_(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def saved(folder: Path, name: str) -> Path:
    return save_pipeline(folder, name) if name == "sd15" else save_family(folder, name)


def images(folder: Path, size: int, classes: tuple[str, ...]) -> Path:
    draw = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(24 // len(classes)):
            pixels = draw.integers(0, 256, (size + 1, size + 4, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def composed(*overrides: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolved(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize("name", ["sd15", "sd3", "sana"])
def test_a_pipeline_is_distilled_by_its_folder_and_captions_alone(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    saved(folder / name, name)
    given = ["teacher.source=" + name, "data.captions.source=captions.txt"]
    dmd2_("train", "experiment=distil", *given, *SMALL)
    run = folder / "runs" / f"distil_{name}" / "now"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["iterations"]) == ("completed", 2)
    sheet = np.asarray(Image.open(run / "samples" / "00000002.png").convert("RGB"))
    assert sheet.std() > 0
    assert list((folder / "cache" / "prompts").glob("*.safetensors"))

    dmd2_("sample", f"run={run}", 'prompt=["a dot","two red dots"]', "num_images=6", "out=asked")
    assert len(list(Path("asked").glob("0*.png"))) == 6
    grid = Image.open("asked/grid.png")
    assert grid.width > TEXT_WIDTH and np.asarray(grid)[:, TEXT_WIDTH:].std() > 0
    student = dmd2.load(run)
    made = student.sample(prompts=["a dot", "two red dots"], seed=0)
    first = np.asarray(Image.open("asked/000000.png"))
    # In a batch of another size rounding differs.
    assert len(made) == 2 and abs(made[0].permute(1, 2, 0).numpy() - first.astype(int)).max() <= 2


def test_every_family_that_reads_text_has_a_recipe():
    without = {kind for kind, family in FAMILIES.items() if family.recipe is None}
    assert without == {"DiTTransformer2DModel"}


def test_the_values_of_a_family_are_what_is_built(folder: Path):
    save_family(folder / "qwen", "qwen")
    given = ["experiment=distil", "teacher.source=qwen", "data.captions.source=captions.txt"]
    config = composed(*given, f"teacher.autoencoder.resolution={SIZES['qwen']}")
    optimizer = build(config["optimizer"])
    assert [optimizer[name].keywords["lr"] for name in ("generator", "critic")] == [1e-4, 2e-5]
    lora = build(config["lora"])
    assert lora["generator"].keywords["rank"] == lora["critic"].keywords["rank"] == 32
    sampler = build(config["sampler"])
    assert type(sampler) is ODEWalk and sampler.times == (1.0, 0.75, 0.5, 0.25)
    own = composed(*given, "optimizer.generator.lr=0.5", "name=mine")
    assert own["name"] == "mine" and build(own["optimizer"])["generator"].keywords["lr"] == 0.5


@pytest.mark.parametrize("choice, own", [("none", set()), ("generator", {"generator"})])
def test_another_choice_of_lora_leaves_the_sizes_that_the_recipe_says_to_nobody(
    choice: str, own: set[str], folder: Path
):
    save_family(folder / "qwen", "qwen")
    given = ["experiment=distil", "teacher.source=qwen", "data.captions.source=captions.txt"]
    lora = composed(*given, f"lora={choice}")["lora"]
    assert {network for network, node in lora.items() if node is not None} == own


def test_a_network_without_text_has_no_recipe(folder: Path):
    save_family(folder / "dit", "dit")
    with pytest.raises(ValueError, match="DiTTransformer2DModel"):
        recipe_of("dit")


@pytest.mark.parametrize(
    ("classes", "size", "num"), [(("cats", "dogs", "eels"), 17, 3), (("",), 32, 0)]
)
def test_a_teacher_of_a_folders_own_size_and_classes_is_trained_and_distilled(
    folder: Path, classes: tuple[str, ...], size: int, num: int
):
    images(folder / "mine", size, classes)
    dmd2_("train", "experiment=images", "data.source=mine", *TRAINED)
    run = folder / "runs" / "images_mine" / "now"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed" and np.isfinite(summary["metrics"]["rfd"])
    config = OmegaConf.load(run / "config.yaml")
    expected = size // 8 * 8
    assert config.data.resolution == config.teacher.denoiser.model.img_resolution == expected
    assert config.teacher.denoiser.model.label_dim == config.teacher.conditioner.num_classes == num
    assert config.loss.generator.gan.weight == {16: 0.032, 32: 0.01}[expected]
    assert dmd2.load(run).sample(4).shape == (4, 3, expected, expected)


def test_images_that_are_too_large_say_what_to_type(folder: Path):
    images(folder / "large", 128, ("",))
    with pytest.raises(Exception, match=r"type data\.resolution=64"):
        composed("experiment=images", "data.source=large")
    config = composed("experiment=images", "data.source=large", "data.resolution=64")
    assert config["teacher"]["denoiser"]["taps"] == ["enc.16x16_block1"]
    assert config["loss"]["generator"]["gan"]["weight"] == 0.0031


def test_a_prompt_for_a_student_without_text_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    dmd2_(
        *("train", "experiment=toy2d_dmd2", "max_iterations=1", "metric.num_samples=20"),
        *("teacher.pretrain.max_iterations=1", "metric.teacher_steps=[1]"),
    )
    with pytest.raises(SystemExit):
        dmd2_("sample", "run=runs/toy2d_dmd2/now", "prompt=a dot")
    assert "reads no text; leave the prompt out" in capsys.readouterr().err


def test_texts_are_a_text_a_list_or_a_file(folder: Path):
    for text in ("a red dot", "", "a red dot " * 50):
        assert texts_of(text) == [text]
    assert texts_of(["a", "b"]) == ["a", "b"]
    assert texts_of("captions.txt")[:2] == ["a red dot 0", "a red dot 1"]
    with pytest.raises(FileNotFoundError):
        texts_of("none.txt")
    with pytest.raises(ValueError, match="is a folder; type a text, or a file"):
        texts_of(".")


def test_a_row_of_the_grid_is_a_prompt():
    # Images 0 and 2 are of the first prompt, 1 and 3 of the second.
    shades = torch.tensor([0, 200, 0, 200], dtype=torch.uint8)
    pixels = shades.view(4, 1, 1, 1).expand(4, 3, 200, 200)
    sheet = np.asarray(prompt_grid(pixels, ["a dark one", "a light one"]))
    assert sheet[100, TEXT_WIDTH + 100, 0] == sheet[100, TEXT_WIDTH + 301, 0] == 0
    assert sheet[301, TEXT_WIDTH + 100, 0] == sheet[301, TEXT_WIDTH + 301, 0] == 200
    assert sheet[:200, :TEXT_WIDTH].min() < 128
