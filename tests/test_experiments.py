"""Every YAML file composes, and every experiment runs, small: a new file is tested by being
there.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from dmd2.cli.main import main
from dmd2.config.check import check_options, missing_keys, resolved
from dmd2.config.folder import config_folder
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.recipes import latents
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.tensors import save_tensors
from dmd2.nets.critic import Critic
from dmd2.runs.build import build
from dmd2.training.callbacks.csv_logger import read_numbers
from pipelines import save_clip, save_inception, save_pipeline, shrunken

ALL = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
OF_PIPELINES = [name for name in ALL if name.startswith("sd")]
ONE_COMMAND = ["distil", "images"]
"""Named after what they are given; `test_one_command.py` runs them."""
EXPERIMENTS = [name for name in ALL if name not in OF_PIPELINES + ONE_COMMAND]
GROUPS_OF = {"prepare": "recipe", "benchmark": "part"}
"""Verbs that choose from a group of their own."""
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in config_folder().glob("*/*.yaml")
    if path.parent.name not in ("experiment", *GROUPS_OF.values())
)
OTHER_CHOICES = [
    (verb, group, path)
    for verb, group in GROUPS_OF.items()
    for path in (config_folder() / group).glob("*.yaml")
]
OF_FILES = sorted(
    path.stem
    for path in (config_folder() / "teacher").glob("*.yaml")
    if re.search(r"^source:", path.read_text(), re.MULTILINE)
)
"""Teachers that are pipelines of diffusers."""
COMPANIONS = {
    "metric=toy": ["data=ring"],
    "teacher=images": [
        "data=images",
        "data.source=images",
        "data.resolution=32",
        "data.channels=3",
    ],
    **{f"teacher=text_digits{name}": ["data=text_digits"] for name in ("", "_v", "_flow", "_dit")},
    **{f"teacher={name}": ["data=prompts"] for name in OF_FILES},
    **{f"data={name}": ["teacher=sd15"] for name in ("prompts", "latents")},
    "loss=decoupled": ["teacher.guidance=3"],
    "data=teacher_samples": ["experiment=digits_teacher_samples"],
}
"""What a choice makes no sense without."""
SMALL = [
    "trainer=cpu",
    "max_iterations=2",
    "global_batch=4",
    "data.batch_size=null",
    "metric.num_samples=20",
    "metric.batch_size=20",
    "metric.num_reference=40",
    "metric.teacher_steps=[1,2]",
    "log_every=1",
    "callbacks.samples.every=1",
    "callbacks.samples.num_samples=20",
]
WATCHED = [text for text in SMALL if not text.startswith("metric")]
"""For experiments without scores."""
TRAINED_HERE = ["teacher.pretrain.max_iterations=1", "teacher.pretrain.data.batch_size=4"]
SHRUNKEN = [
    "teacher.denoiser.model.img_resolution=16",
    "teacher.denoiser.model.model_channels=32",
    "teacher.denoiser.model.channel_mult=[1,2]",
    "teacher.denoiser.model.num_blocks=1",
    "teacher.denoiser.taps=[enc.8x8_block0]",
]
"""A published network, ADM or DDPM++, at a size for tests."""
NO_DOWNLOADS = [
    "metric=digits",
    "~metric.suite.detectors.classes",
    "~metric.suite.metrics.accuracy",
]
"""Scores that need no weights, for data of any size and number of classes."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    return tmp_path


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def only_its_user_has(config: DictConfig, source: Path) -> list[str]:
    """Overrides for what a config leaves open: a path to data, and its size."""
    values = {
        "data.source": source,
        "data.resolution": 32,
        "data.captions.source": source,
        "teacher.source": source,
    }
    return [f"{key}={values[key]}" for key in missing_keys(OmegaConf.to_container(config))]


def images(folder: Path) -> Path:
    """Ten classes of six 32x32 images, four to train on."""
    draw = np.random.default_rng(0)
    for split, num in (("train", 4), ("test", 2)):
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
            for i in range(num):
                pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / str(label) / f"{i}.png")
    return folder


def published(full: DictConfig, folder: Path) -> list[str]:
    """Overrides for an experiment whose files are others' or other runs': a shrunken network with
    random weights.
    """
    small: Any = OmegaConf.to_container(
        composed(f"experiment={full.name}", *SHRUNKEN), resolve=True
    )
    denoiser: Denoiser = build(small["teacher"]["denoiser"])
    save_tensors(denoiser.state_dict(), folder / "network.safetensors")
    save_tensors(Critic(denoiser, None).state_dict(), folder / "critic.safetensors")
    overrides = [
        *SHRUNKEN,
        f"teacher.weights={folder / 'network.safetensors'}",
        "data.resolution=16",
        *NO_DOWNLOADS,
    ]
    if full.weights is not None:
        overrides += [
            f"weights={folder / 'network.safetensors'}",
            f"critic_weights={folder / 'critic.safetensors'}",
        ]
    if full.pairs is not None:
        overrides += ["loss.generator.regression.distance._target_=dmd2.losses.SquaredError"]
    return [*overrides, f"data.source={folder / 'images'}"]


def captioned(folder: Path) -> Path:
    """Ten 20x16 images with captions beside them."""
    folder.mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a red dot {i}")
    return folder


def of_coco(folder: Path) -> list[str]:
    """Overrides for a score on files as coco_small wants them, in small."""
    (folder / "asked.txt").write_text("\n".join(f"a red dot {i}" for i in range(4)))
    save_inception(folder / "inception")
    return [
        "metric.num_samples=4",
        "metric.captions.source=asked.txt",
        f"metric.real.whole.source={captioned(folder / 'real')}",
        f"metric.suite.detectors.clip.source={save_clip(folder / 'clip')}",
        "metric.suite.detectors.clip.preprocessing.size=8",
        "metric.suite.detectors.whole.folder=inception",
        "+metric.suite.detectors.whole.sha256=null",
        "metric.suite.detectors.whole.preprocessing.size=8",
    ]


def pipeline(full: DictConfig, folder: Path) -> list[str]:
    """Overrides for an experiment on a pipeline of diffusers: a small one, its latents, and what it
    starts from.
    """
    name = full.name.split("_")[0]
    overrides = [*shrunken(name), f"teacher.source={save_pipeline(folder / name, name)}"]
    (folder / "captions.txt").write_text("a dot\na red dot\n")
    overrides += ["data.captions.source=captions.txt", *of_coco(folder)]
    small: Any = OmegaConf.to_container(
        composed(f"experiment={full.name}", *overrides), resolve=True
    )["teacher"]
    if "source" in full.data:
        codec = build(small["autoencoder"])
        latents(
            captioned(folder / "images"), folder / "latents", Decoder(16), codec, "caption", "stop"
        )
        overrides += ["data.source=latents", "data.captions.source=[latents,captions.txt]"]
    for key in ("weights", "critic_weights"):
        if full[key] is not None:
            denoiser: Denoiser = build(small["denoiser"])
            network = denoiser if key == "weights" else Critic(denoiser, None)
            save_tensors(network.state_dict(), folder / f"{key}.safetensors")
            overrides += [f"{key}={key}.safetensors"]
    if full.pairs is not None:  # without VGG-16's weights
        overrides += ["loss=dmd" if "dm" in full.loss.generator else "loss=regression"]
    return overrides


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_every_key_is_read(choice: str) -> None:
    group, name = choice.split("=")
    if choice == "teacher=images":  # read for its size and classes
        images(Path("images"))
    with_it = [choice, *COMPANIONS.get(choice, [])]
    config = resolved(composed(*with_it, *only_its_user_has(composed(*with_it), Path("images"))))
    assert config[group], f"conf/{group}/{name}.yaml is empty"
    first = (config_folder() / group / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# "), "a file opens with what it is"


@pytest.mark.parametrize(
    ("verb", "group", "path"), OTHER_CHOICES, ids=lambda value: getattr(value, "stem", value)
)
def test_every_choice_of_another_verb_composes_and_every_key_is_read(
    verb: str, group: str, path: Path
) -> None:
    given = [
        f"{key}=x"
        for key in OmegaConf.load(config_folder() / f"{verb}.yaml")
        if key in ("source", "out")
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        check_options(compose(verb, overrides=[f"{group}={path.stem}", *given]), verb)
    assert path.read_text().startswith("# "), "a file opens with what it is"


def trained(folder: Path, experiment: str, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """The directory and the summary of a run that completed its two iterations."""
    sys.argv = ["dmd2", "train", f"experiment={experiment}", *overrides]
    main()
    run = folder / "runs" / experiment / "now"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["iterations"]) == ("completed", 2)
    return run, summary


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(
    experiment: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = composed(f"experiment={experiment}")
    assert full.name == experiment, "the name is the file's"
    overrides = only_its_user_has(full, images(folder / "images"))
    overrides = (
        published(full, folder) if full.teacher.pretrain is None else [*overrides, *TRAINED_HERE]
    )
    if full.teacher.pretrain is not None and full.teacher.denoiser.model.get("model_channels"):
        overrides += ["teacher.denoiser.model.model_channels=16"]
    if full.pairs is not None:
        overrides += ["pairs.num_pairs=8", "pairs.batch_size=4", "pairs.solver.num_steps=2"]
    run, summary = trained(folder, experiment, *SMALL, *overrides)
    # Of so few samples no class may have two, and then they have no scores of classes.
    of_classes = {"diversity", "class_distance"}
    scores, floor = ({*summary[key]} | of_classes for key in ("metrics", "floor"))
    assert summary["teacher"] and scores == floor
    assert np.isfinite(list(summary["metrics"].values())).all()
    for name in ("config.yaml", "metrics.csv", "comparison.png", "report.html"):
        assert (run / name).stat().st_size > 0, name
    assert len(list((run / "samples").glob("0*.png"))) == 2
    assert (run.parent / "latest").resolve() == run
    assert "completed" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", OF_PIPELINES)
def test_every_experiment_on_a_pipeline_runs(experiment: str, folder: Path) -> None:
    full = composed(f"experiment={experiment}")
    assert full.name == experiment, "the name is the file's"
    overrides = pipeline(full, folder)
    if full.pairs is not None:
        overrides += ["pairs.num_pairs=4", "pairs.global_batch=4", "pairs.solver.num_steps=2"]
    run, summary = trained(folder, experiment, *WATCHED, *overrides)
    assert (
        summary["metrics"].keys() == {"fid", "clip"}
        and np.isfinite(list(summary["metrics"].values())).all()
    )
    sheet = np.asarray(Image.open(run / "samples" / "00000002.png").convert("RGB"))
    assert sheet.std() > 0 and (run / "checkpoints" / "student.safetensors").exists()


LOSSES = sorted(path.stem for path in (config_folder() / "loss").glob("*.yaml"))
PAIRS = (
    "pairs={num_pairs:4,batch_size:null,dtype:float16,at_once:4,solver:{_target_:dmd2.diffusion."
)
OF_PAIRS = [PAIRS + "DDIM,num_steps:2}}"]
BESIDE = {
    "decoupled": ["teacher.guidance=1.5"],
    "dmd": OF_PAIRS,
    "regression": OF_PAIRS,
    "dp_dmd": [
        "sampler=four_step_ode",
        PAIRS + "FirstJump,num_steps:2,times:${sampler.times}}}",
    ],
}
"""What a loss needs besides."""
CAPTIONED = "experiment=text2digits_dmd2_4step"
FROM_NOISE = "sampler.times=[1.0,0.75,0.5,0.25]"
TAUGHT = {
    "edm": ["experiment=digits_4step"],
    "eps": [CAPTIONED, "sampler.times=[0.4,0.3,0.2,0.1]"],
    "v": [CAPTIONED, "teacher=text_digits_v", FROM_NOISE],
    "flow": [CAPTIONED, "teacher=text_digits_flow", FROM_NOISE],
}
"""Four steps of each kind of teacher."""
TO_TRAIN = [
    (loss, prediction)
    for loss in LOSSES
    for prediction in TAUGHT
    # LPIPS wants a file; guidance wants a teacher that knows the unconditional case.
    if not loss.endswith("lpips") and (loss, prediction) != ("decoupled", "edm")
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("loss", "prediction"), TO_TRAIN)
def test_every_loss_trains_four_steps_of_every_prediction(loss: str, prediction: str) -> None:
    """In shares of a batch, with finite numbers."""
    sys.argv = ["dmd2", "train", f"loss={loss}", *TAUGHT[prediction], *BESIDE.get(loss, [])]
    sys.argv += [*TRAINED_HERE, "trainer=cpu", "global_batch=8", "accumulate=2", "metric=none"]
    sys.argv += ["data.batch_size=null", "callbacks.samples=null", "paths.run=run"]
    sys.argv += ["max_iterations=2", "log_every=1", "critic_updates=1"]
    main()
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["status"], summary["generator_updates"]) == ("completed", 2)
    first, last = read_numbers(Path("run/metrics.csv"))
    for row in (first, last):
        losses = [row[key] for key in row if key.startswith(("generator/loss_", "critic/loss_"))]
        assert len(losses) > 1 and np.isfinite(losses).all()
        norms = [row[f"{network}/gradient_norm"] for network in ("generator", "critic")]
        assert np.isfinite(norms).all()
        assert all(row[key] == 0 for key in row if key.endswith("scrubbed"))
