"""`dmd2 train --check` says what would be trained, or all that is missing at once, and writes
nothing.
"""

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from answers import answer, inside  # noqa: F401 - a fixture
from dmd2.cli.main import main
from dmd2.config.folder import config_folder
from dmd2.runs.presence import network_on_meta

pytestmark = pytest.mark.usefixtures("inside")
LACKING = [
    *("experiment=imagenet64_dmd2", "trainer=gpu", "data.source=gone", "weights=gone.safetensors"),
    *("teacher.weights=no.safetensors", "global_batch=8"),
]


@pytest.mark.parametrize("choice", ["toy2d_dmd2", "digits_4step", "text2digits_dmd2"])
def test_a_check_says_what_would_be_trained_and_writes_nothing(
    choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.argv = ["dmd2", "train", "--check", f"experiment={choice}", "max_iterations=1234"]
    main()
    line = capsys.readouterr().out
    assert line.startswith(f"would train {choice} into runs/{choice}/now: 1,234 iterations, ")
    assert "parameters, a teacher trained first" in line and line.count("\n") == 1
    assert not list(Path().iterdir())


FOUR = "experiment=digits_4step"
OWN = {"pipeline", "images"}
"""Teachers that are read of a folder of the user's, or fitted to one."""


TEACHERS = {path.stem for path in (config_folder() / "teacher").glob("*.yaml")}


@pytest.mark.parametrize("choice", sorted(TEACHERS - OWN))
def test_every_teacher_s_parameters_are_counted_without_memory(choice: str) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"teacher={choice}"])
    OmegaConf.update(config, "data.resolution", 32, force_add=True)  # of data that are not here
    denoiser = OmegaConf.to_container(config.teacher.denoiser, resolve=True)
    network = network_on_meta({"teacher": {"denoiser": denoiser}})
    assert sum(parameter.numel() for parameter in network.parameters()) > 10_000
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("flag", [["--check"], []], ids=["check", "run"])
def test_all_that_is_missing_is_said_at_once(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "train", *flag, *LACKING).splitlines()
    assert said[0] == "dmd2: 5 things are missing:" and len(said) == 6
    devices_and_weights = ("wants a GPU", "gone.safetensors, where weights", "at no.safetensors")
    for words in (*devices_and_weights, "at gone", "inception-2015-12-05.pt"):
        assert any(words in line and line.startswith("  ") for line in said), (words, said)


@pytest.mark.parametrize("verb", ["pretrain", "pairs"])
def test_what_a_teacher_lacks_is_said_at_once(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ["trainer=gpu", "data=images", "data.source=gone", "teacher.weights=no.safetensors"]
    said = answer(capsys, verb, "experiment=digits_dmd", *missing).splitlines()
    assert said[0] == "dmd2: 3 things are missing:" and len(said) == 4
    for words in ("wants a GPU", "at no.safetensors", "at gone"):
        assert any(words in line for line in said), (words, said)


def test_packages_that_are_missing_are_said_with_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name in ("wandb", "peft") else find(name, *rest),
    )
    said = answer(capsys, "train", "logger=wandb", "lora=both", "weights=gone.safetensors")
    assert "3 things are missing" in said
    assert "EXTRAS=dev,wandb" in said and "needs peft" in said and "gone.safetensors" in said


def test_no_room_for_checkpoints_or_in_memory_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 10))
        line = answer(capsys, "train", "--check")
    assert "0.0 GB free" in line and "checkpoint.keep=1" in line
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    assert "memory free" in answer(capsys, "train", "--check")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--check", "sed=1"], "did you mean seed?"),
        (["train", "--check", "resume=gone.ckpt"], "gone.ckpt"),
        (["pretrain", "--check"], "without it"),
        (["train", "--check", "--multirun", "seed=0,1"], "leave the sweep out"),
        (["train", "--check", "metric.primary=nope"], "metric.primary is nope, but the metrics"),
        (["train", "--check", "metric.batch_size=0"], "metric.batch_size"),
        (["train", "--check", "metric.teacher_steps=[0]"], "metric.teacher_steps"),
        (["train", "--check", "metric.num_samples=100000000000000"], "num_samples must be from 2"),
        (["train", "--check", "sampler.times=[]"], "sampler.times must fall"),
        (["train", "--check", FOUR, "data.batch_size=30"], "no multiple of the 4 steps"),
        (["train", "--check", FOUR, "critic_step_layer=nope"], "'nope'"),
        (["train", "--check", FOUR, "sampler.times=[1.0]"], "type critic_step_layer=null"),
        (
            ["train", "--check", FOUR, "loss=dp_dmd"],
            "lacks pairs of the teacher's first step; type exp",
        ),
        (
            ["train", "--check", "experiment=digits_dp_dmd", "sampler=four_step"],
            "type sampler=four_step_ode",
        ),
        (
            ["train", "--check", "experiment=digits_dp_dmd", "+data.reals=pairs"],
            "first step are no clean images; type data.reals=data",
        ),
        (["train", "--check", "loss=dp_dmd"], "lacks several sampling steps and pairs of"),
        (
            ["train", "--check", "experiment=digits_dp_dmd", "pairs.solver.times=[1.0,0.5]"],
            "begin with [1.0, 0.5], and the student's with [1.0, 0.4993]",
        ),
        (["train", "--check", "loss=decoupled", "teacher.guidance=3"], "+teacher.pretrain.module"),
        (["train", "--check", "sampler.times=0.5"], "type sampler.times=[1.0,0.5]"),
        (["train", "--check", "sampler.times=[1.0,1.0]"], "sampler.times must fall"),
        (["train", "--check", "callbacks.samples.every=0"], "callbacks.samples.every must be"),
        (["train", "--check", "callbacks.evaluation.every=0"], "callbacks.evaluation.every must"),
        (["train", "--check", "ema=[0.9,0.9]"], "each once"),
        (["train", "--check", "teacher.conditioner.num_classes=3"], "out of range for a teacher"),
        (["train", "--check", "paths.run=/dev/null"], "paths.run=/dev/null"),
        (["train", "--check", "paths.cache=/dev/null/x"], "paths.cache=/dev/null/x"),
        (["train", "--check", "data.batch_size=99999999999"], "data.batch_size=99999999999 must"),
        (["train", "--check", "teacher.denoiser.model.model_channels=0"], "model"),
        (["train", "--check", "teacher.denoiser.model.channel_mult=[]"], "model"),
    ],
)
def test_a_check_refuses_as_the_run_would(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in answer(capsys, *arguments)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiment=digits_dmd2", "loss=f_distill", "accumulate=16"], "has 4 (data.batch_size="),
        (
            ["experiment=digits_dmd2", "loss=embedding", "accumulate=8"],
            "has 8 (data.batch_size=64, accumulate=8), where 16 are enough; type a lar",
        ),
        (
            ["experiment=digits_dp_dmd", "critic_step_layer=null"],
            "type critic_step_layer=map_layer0 for EDM",
        ),
    ],
)
def test_a_check_says_what_a_loss_suffers_from(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for chosen, is_said in ((arguments, True), (arguments[:-1], False)):
        sys.argv = ["dmd2", "train", "--check", *chosen]
        main()
        assert (words in capsys.readouterr().err) == is_said


def test_networks_that_do_not_align_are_refused_before_the_teacher_is_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")
    arguments = ["experiment=text2digits_dmd2_4step_lora", "callbacks=alignment", "metric=none"]
    said = answer(capsys, "train", *arguments)
    assert "differ in shape; type lora=both" in said
    assert not list(Path().glob("cache/teachers/*"))
