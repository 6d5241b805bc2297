"""Wrong input gets one line that says what, what was got and what to type, a non-zero exit, and no
training.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from dmd2.cli.errors import chain
from dmd2.cli.main import main

TINY = [
    "max_iterations=2",
    "teacher.pretrain.max_iterations=1",
    "metric.num_samples=20",
    "callbacks.samples=null",
]


TEXT = ["experiment=sd15_dmd2", "metric=none", "trainer=cpu", "global_batch=4"]
XL = ["experiment=sdxl_dmd2_4step", "data=prompts", "data.captions.source=x", *TEXT[1:]]
"""SDXL's recipe, which has a GAN, from captions alone."""


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line on stderr that `dmd2` ends with."""
    sys.argv = ["dmd2", *arguments]
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code not in (0, None)
    os.environ.pop("DMD2_RUN_ID", None)
    printed = re.findall(
        r"^dmd2:.*(?:\n  .*)*", capsys.readouterr().err, re.MULTILINE
    )  # a long list goes on, indented
    assert len(printed) == 1, printed
    return printed[0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.delenv("DMD2_RUN_ID", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["no verb 'trian'", "did you mean train?"]),
        (
            ["train", "experiment=nope"],
            ["no experiment=nope", "digits_dmd2,", ",\n  ", "toy2d_dmd2"],
        ),
        (
            ["train", "experiment=toy2d_dmd2", "data=images", "data.source=x"],
            [".modes.name reads data.name", "data=NAME"],
        ),
        (["train", "loss=nope"], ["nope", "dmd2", "no_gan"]),
        (["train", "sed=1"], ["sed", "seed"]),
        (["train", "+sed=1"], ["sed", "did you mean seed?"]),
        (
            ["train", "+loss.generator.dm.wieght=1"],
            ["loss.generator.dm.wieght", "did you mean loss.generator.dm.weight?"],
        ),
        (["train", "+teacher.denoiser.model.chanels=1"], ["teacher.denoiser.model.chanels"]),
        (
            ["train", "+teacher.pretrain.data.bach_size=1"],
            ["bach_size", "did you mean teacher.pretrain.data.batch_size?"],
        ),
        (["train", "sampler.times=[0.5,1.0]"], ["must fall", "[0.5, 1.0]", "sampler.times=[1.0"]),
        (["train", "loss=dmd"], ["pairs", "needs"]),
        (
            ["train", "experiment=digits_dmd", "loss=no_gan"],
            ["loss.generator.regression", "no such term", "~loss.generator.regression"],
        ),
        (
            ["train", "experiment=toy2d_dmd2", "loss=sid"],
            ["no such term", "take it out: ~loss.generator.dm ~loss.generator.gan, or"],
        ),
        (
            ["train", "experiment=digits_dmd", "loss=no_gan", "~loss.generator.regression"],
            ["pairs=null", "no loss term reads them"],
        ),
        (
            ["train", "data=teacher_samples"],
            ["data.reals=pairs", "none are made", "experiment=digits_teacher_samples"],
        ),
        (
            ["train", "loss=no_gan", "discriminator_features=teacher"],
            ["discriminator_features=teacher", "no loss term has a discriminator"],
        ),
        (
            [
                "train",
                "loss=f_distill",
                "loss.critic.gan._target_=dmd2.losses.RelativisticGANCritic",
            ],
            ["loss.generator.dm", "type loss.critic.gan._target_=dmd2.losses.GANCritic"],
        ),
        (
            ["train", "loss=embedding", "data.batch_size=1"],
            ["loss.generator.embedding", "data.batch_size=1", "type a larger data.batch_size"],
        ),
        (
            ["train", "loss=f_distill", "accumulate=64", "data.batch_size=64"],
            ["loss.generator.dm", "accumulate=64", "or a smaller accumulate"],
        ),
        (
            ["train", "experiment=toy2d_dmd2", "loss=embedding"],
            ["loss.generator.embedding", "shape (2,)", "loss.generator.embedding=null"],
        ),
        (
            ["train", "experiment=digits_dp_dmd", "sampler.times=[1.0]"],
            ["loss.generator.dm", "lacks several sampling steps", "type experiment=digits_dp_dmd"],
        ),
        (["train", "teacher.head.num_groups=7"], ["num_groups", "7"]),
        (["train", "ema=[2.0]"], ["between 0 and 1", "2.0"]),
        (["train", "optimizer.generator.lr=-1"], ["learning rate", "-1"]),
        (
            ["train", "optimizer.critic.lr=fast"],
            ["optimizer.critic.lr", "'fast'", "type optimizer.critic.lr=0.001"],
        ),
        (["train", "metric.primary=nope"], ["nope", "rfd"]),
        (["train", "resume=gone.ckpt"], ["gone.ckpt", "resume=auto"]),
        (["train", "checkpoint.every=0"], ["checkpoint.every", "0"]),
        (["train", "~data.seed"], ["seed"]),
        (["train", "data=images"], ["data.source", "data.source=PATH"]),
        (
            ["train", "loss=no_gan", "+loss.generator.gan.weight=1"],
            ["loss.generator.gan", "take it out: ~loss.generator.gan,"],
        ),
        (["train", *XL, "loss=no_gan"], ["take it out: ~loss.generator.gan,"]),
        (
            ["train", *XL, "loss=no_gan", "~loss.generator.gan"],
            ["data.source", "take it out: ~data.source"],
        ),
        (["train", "data=images", "data.source=gone.zip", "data.resolution=8"], ["gone.zip"]),
        (["train", "data=ring", "loss=no_gan"], ["no labels", "10 classes"]),
        (["train", "teacher=cifar10", "loss=no_gan"], ["shape", "(1, 8, 8)"]),
        (["train", "trainer=gpu"], ["trainer=cpu"]),
        (["train", "trainer.devices=2"], ["trainer=ddp trainer.accelerator=cpu trainer.devices=2"]),
        (
            ["train", "trainer=ddp", "trainer.devices=2"],
            ["type trainer=ddp trainer.accelerator=cpu trainer.devices=2"],
        ),
        (["benchmark", "part=iteration"], ["type part.trainer=cpu"]),
        (["train", "discriminator_features=techer"], ["discriminator_features", "techer"]),
        (["train", "critic_step_layer=model"], ["there is one", "critic_step_layer=null"]),
        (["train", "experiment=digits_4step", "critic_step_layer=time"], ["'time'", "map_layer0"]),
        (["train", "ema=0.9"], ["ema=[0.999]"]),
        (["train", "max_iterations=1k"], ["max_iterations", "1k"]),
        (["train", "accumulate=5"], ["accumulate=5", "batch_size=64"]),
        (
            ["train", "global_batch=10", "accumulate=3", "data.batch_size=null"],
            ["=10", "type global_batch=9"],
        ),
        (
            ["train", "global_batch=32"],
            ["global_batch=32", "data.batch_size=64", "data.batch_size=null"],
        ),
        (["train", "data.batch_size=null"], ["global_batch=N", "data.batch_size=N"]),
        (["train", "callbacks.samples.every=0"], ["callbacks.samples", "0"]),
        (["train", "teacher.guidance=2"], ["guidance", "condition_dropout"]),
        (["train", "trainer.devices=2"], ["trainer.devices=2"]),
        (["train", "teacher.negative=blurry"], ["teacher.negative", "leave teacher.negative out"]),
        (
            ["train", "+teacher.negative=blurry"],
            ["'blurry'", "reads no text", "type teacher.negative=null"],
        ),
        (["train", *TEXT, "teacher.negative=5"], ["teacher.negative=5", "no text"]),
        (
            ["train", *TEXT, "teacher.negative=blurry", "teacher.guidance=1"],
            ["'blurry'", "teacher.guidance=W"],
        ),
        (["train", "data.batch_size=0"], ["data.batch_size=0", "from 1"]),
        (["train", "data.batch_size=few"], ["data.batch_size=few", "whole number"]),
        (["sample", "run=gone", "num_image=3"], ["num_image", "did you mean num_images?"]),
        (["evaluate", "run=gone", "+num_sample=3"], ["num_sample", "did you mean num_samples?"]),
        (["train", "teacher.weights=gone.safetensors"], ["gone.safetensors"]),
        (["train", "teacher.denoiser.taps=[enc.nothing]"], ["enc.nothing", "enc.4x4_block0"]),
        (["train", "loss.generator.dm.view=other"], ["loss.generator.dm", "other", "critic"]),
        (["train", "max_iterations=0"], ["max_iterations", "0"]),
        (["train", "critic_updates=0"], ["critic_updates", "0"]),
        (["train", "max_iterations=9", "critic_head_start=9"], ["no update of the generator"]),
        (["benchmark", "part=ladder", "part.num_steps=0"], ["part.num_steps must be at least 1"]),
        (["benchmark", "part=ladder", "part.num_solver_steps=3"], ["at least 4, got 3"]),
        (["sample"], ["run"]),
        (["sample", "run=gone"], ["gone", "run="]),
        (["evaluate", "run=gone"], ["gone"]),
        (
            ["train", "metric=coco30k"],
            ["data/coco/captions30k.txt; put 30,000 captions", "metric.captions.source=FILE"],
        ),
        (["train", TEXT[0], *TEXT[2:]], ["data/coco/captions30k.txt; put 30,000", "metric=none"]),
        (["compare", "runs=gone", "out=null"], ["no directory gone;"]),
        (["pairs"], ["pairs", "digits_dmd"]),
        (["prepare", "source=x", "out=y"], ["recipe", "imagenet64"]),
        (
            ["prepare", "recipe=pairs"],
            ["no recipe=pairs", "latents_sdxl", "type dmd2 pairs experiment=NAME"],
        ),
        (["prepare", "recipe=imagenet64"], ["source=PATH", "out=PATH"]),
        (["prepare", "recipe=imagenet64", "source=gone", "out=y"], ["gone", "a folder, a zip"]),
        (
            ["prepare", "recipe=imagenet64", "source=x", "out=y", "+recipe.brokn=skip"],
            ["did you mean recipe.broken?"],
        ),
        (
            ["train", "data=imagenet64"],
            ["data/imagenet64", "dmd2 prepare recipe=imagenet64", "image-net.org"],
        ),
        (["train", "data=images", "data.source=."], ["data.resolution=64"]),
        (["benchmark", "part=gone"], ["gone", "loader"]),
        (["import"], ["source=PATH", "out=PATH"]),
        (["import", "source=gone.pkl", "out=teacher.safetensors"], ["gone.pkl"]),
        (
            ["train", "teacher=edm_cifar10_cond_vp"],
            ["download https://", "dmd2 import source=edm-cifar10"],
        ),
        (["train", "weights=gone.safetensors"], ["gone.safetensors", "type weights=FILE"]),
        (
            ["train", "critic_weights=gone.safetensors"],
            ["gone.safetensors", "type critic_weights=FILE"],
        ),
        (
            ["train", "teacher=pipeline", "data=prompts", "data.captions.source=x"],
            ["type teacher.source=PATH"],
        ),
        (
            ["train", *TEXT, "teacher.source=gone/no/where"],
            ["no pipeline at gone/no/where", "teacher.source=DIR"],
        ),
        (
            ["train", *TEXT, "teacher.source=."],
            [". has no unet/config.json"],
        ),
        (["train", "teacher=sd15", "data=latents"], ["type data.source=PATH"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    line = refused(capsys, *arguments)
    for word in words:
        assert word in line, line
    assert not Path("cache/teachers").exists(), "a teacher was trained before the mistake was seen"


def test_an_empty_folder_and_a_corrupt_image_are_named(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "images" / "cat").mkdir(parents=True)
    data = ["data=images", "data.source=images", "data.resolution=8", "paths.run=other"]
    assert "images" in refused(capsys, "train", *data[:-1])
    (folder / "images" / "cat" / "broken.png").write_bytes(b"not an image")
    assert "broken.png" in refused(capsys, "train", *data)


def test_more_classes_than_the_teacher_knows_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(
        capsys, "train", "teacher.denoiser.model.label_dim=5", "teacher.conditioner.num_classes=5"
    )
    assert "out of range" in line and "9" in line and "5" in line


def test_a_directory_that_holds_a_run_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "config.yaml").write_text("")
    assert "paths.run" in refused(capsys, "train", "paths.run=old", *TINY)


LACKING = {
    "Inception": (
        [
            "experiment=imagenet64_dmd2",
            "metric=imagenet64",
            "+metric.suite.detectors.inception.fetch=false",
        ],
        ["download https://", "cache/inception/inception-2015-12-05.pt"],
    ),
    "GPUs": (["experiment=imagenet64_dmd2", "trainer=gpu"], ["trainer=cpu"]),
    "teacher": (
        ["experiment=imagenet64_dmd2"],
        [
            "download https://",
            "dmd2 import source=edm-imagenet-64x64-cond-adm.pkl out=cache/teachers/",
        ],
    ),
    "weights": (
        ["experiment=imagenet64_dmd2_finetune", "teacher.weights=teacher.safetensors"],
        ["runs/imagenet64_dmd2_no_gan/latest/checkpoints/student.safetensors", "type weights=FILE"],
    ),
    "LPIPS": (
        ["experiment=imagenet64_dmd", "teacher.weights=teacher.safetensors"],
        [
            "https://download.pytorch.org/models/vgg16-397923af.pth at ",
            "hub/checkpoints",
            "SquaredError",
        ],
    ),
    "data": (
        ["experiment=imagenet64_dmd2", "teacher.weights=teacher.safetensors", "data.source=gone"],
        ["gone", "dmd2 prepare recipe=imagenet64", "image-net.org"],
    ),
}
"""What a published recipe may lack on a new machine, and the error message of it."""


@pytest.mark.parametrize("what", LACKING)
def test_a_recipe_says_what_it_lacks_before_data_is_decoded(
    what: str, capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder))
    (folder / "images").mkdir()
    (folder / "images" / "broken.png").write_bytes(b"would be an error of its own")
    (folder / "teacher.safetensors").touch()
    arguments, words = LACKING[what]
    given = {argument.partition("=")[0] for argument in arguments}
    everything_else = ["trainer=cpu", "metric=digits", "data.source=images"]
    rest = [argument for argument in everything_else if argument.partition("=")[0] not in given]
    line = refused(capsys, "train", *rest, *arguments)
    for word in words:
        assert word in line, line


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__context__ = second, first
    assert chain(first) == [first, second]
