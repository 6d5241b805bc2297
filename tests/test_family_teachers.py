"""Transformers of every family as teachers: small runs, and conf/'s files for published ones."""

import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.recipes import latents
from dmd2.diffusion import Flow
from dmd2.io.tensors import read_tensors
from dmd2.nets import ConvHead, vae_of
from dmd2.nets.autoencoder_kinds import kind_of
from dmd2.nets.pipeline_families import num_tokens
from dmd2.nets.pipeline_noise import noise_of
from dmd2.nets.pipeline_recipe import pipeline_step_layer
from dmd2.runs.build import build
from families import FAMILIES, SIZES, TRANSFORMERS

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)
pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

SMALL = [
    "experiment=sd15_dmd2",
    "metric=none",
    "data.captions.source=captions.txt",
    "global_batch=2",
    "critic_updates=1",
    "trainer=cpu",
    "max_iterations=2",
    "log_every=1",
    "teacher.denoiser.gradient_checkpointing=false",
    "callbacks.samples.every=2",
    "callbacks.samples.num_samples=2",
]
AGAIN = "teacher.denoiser.gradient_checkpointing=true"
NARROW = ["+trainer.precision=bf16-mixed", "teacher.dtype=bfloat16"]
TWO_STEPS = [
    "sampler=four_step",
    "sampler.times=[1.0,0.5]",
    "sampler.steps._target_=dmd2.diffusion.EveryStep",
]
RELEASED = {
    # Parameters in billions, width, and side of the map of tokens.
    "sd3": (2.03, 1536, 64),
    "sd35_medium": (2.24, 1536, 64),
    "sd35_large": (8.06, 2432, 64),
    "sana_600m": (0.592, 1152, 32),
    "sana_1600m": (1.604, 2240, 32),
    "flux": (11.9, 3072, 64),
    "flux2_klein_base_4b": (3.88, 3072, 64),
    "flux2_klein_base_9b": (9.08, 4096, 64),
    "chroma": (8.90, 3072, 64),
    "qwen_image": (20.4, 3072, 64),
    "zimage": (6.155, 3840, 64),
    "pixart_alpha": (0.611, 1152, 64),
    "pixart_sigma": (0.611, 1152, 64),
    "dit": (0.750, 1152, 16),
    "auraflow": (6.83, 3072, 64),
}
"""Published teachers of conf/."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with captions, and a class's number for each of 1000."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    (tmp_path / "captions.txt").write_text("\n".join(f"a red dot {i}" for i in range(10)))
    (tmp_path / "classes.txt").write_text("\n".join(map(str, range(1000))))
    return tmp_path


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolved(compose("train", overrides=[*SMALL, *overrides]))


def teacher(name: str, source: Path) -> list[str]:
    """Overrides for a family's small pipeline."""
    sized = [f"teacher.source={source}", f"teacher.autoencoder.resolution={SIZES[name]}"]
    if name != "dit":
        return ["teacher=pipeline", *sized]
    # Its condition is a class, so its own file says it all.
    model = {**TRANSFORMERS["dit"][1]}
    small = [f"++teacher.denoiser.model.{key}={value}" for key, value in model.items()]
    return ["teacher=dit", *small, *sized, "+teacher.autoencoder.factor=2", *CLASSES]


def published(name: str, source: Path) -> list[str]:
    """Overrides for a family's file of conf/, with the sizes of its small pipeline."""
    if name == "dit":
        return teacher(name, source)
    kind, model = TRANSFORMERS[name]
    # What a released network has and the small one leaves to the class stands in the file.
    network = getattr(diffusers, kind).from_config(model).config
    schedule, _ = noise_of(str(source), num_tokens(source, SIZES[name]))
    file = PUBLISHED.get(name, name)
    given = composed(f"teacher={file}")["teacher"]
    sizes = {key: network[key] for key in {*model, *given["denoiser"]["model"]} & {*network}}
    listed = {key: list(x) if isinstance(x, tuple) else x for key, x in sizes.items()}
    named = [f"++teacher.denoiser.model.{key}={value}" for key, value in listed.items()]
    if isinstance(schedule, Flow):
        named.append(f"teacher.denoiser.schedule.shift={schedule.shift}")
    _, vae = kind_of(source)
    named += [f"++teacher.autoencoder.{key}={vae[key]}" for key in ("channels", "factor")]
    named = [override.replace(" ", "").replace("None", "null") for override in named]
    sized = [f"teacher.source={source}", f"teacher.autoencoder.resolution={SIZES[name]}"]
    return [f"teacher={file}", *named, *sized]


CLASSES = ["data.captions.source=classes.txt"]
PUBLISHED = {
    "sana": "sana_600m",
    "flux2": "flux2_klein_base_4b",
    "qwen": "qwen_image",
    "pixart": "pixart_sigma",
}
"""The files of conf/teacher that are not called as their family is here."""


def trained(run: str, *overrides: str) -> list[dict[str, float]]:
    """The losses and norms of a run's iterations, all finite."""
    sys.argv = ["dmd2", "train", *SMALL, *overrides, f"paths.run={run}"]
    main()
    with Path(run, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    read = ("generator/loss_dm", "generator/gradient_norm", "critic/loss_denoising")
    found = [{key: float(row[key]) for key in read} for row in rows]
    assert len(found) == 2 and all(np.isfinite(list(row.values())).all() for row in found)
    # Where nothing guides, a critic that begins as the teacher gives the student no gradient.
    assert all(row["critic/loss_denoising"] > 0 for row in found)
    assert found[1]["generator/gradient_norm"] > 0
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_all_weights_are_distilled_the_same_with_activations_computed_again(name: str, folders):
    asked = teacher(name, folders(name))
    plain = trained("plain", *asked)
    assert trained("again", *asked, AGAIN) == plain
    # Its file of conf/ says what the pipeline's files say, in all but the sizes.
    said = trained("published", *published(name, folders(name)))
    for row, expected in zip(said, plain, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    sheet = np.asarray(Image.open("plain/samples/00000002.png").convert("RGB"))
    assert sheet.std() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_in_float32_is_distilled_on_weights_in_bfloat16(name: str, folders):
    # One update of the critic must be larger than bfloat16 rounds.
    asked = [AGAIN, *NARROW, "lora=both", "optimizer.critic.lr=0.1"]
    trained("both", *teacher(name, folders(name)), *asked)
    for part in ("student", "critic"):
        state = read_tensors(Path(f"both/checkpoints/{part}.safetensors"))
        assert {value.dtype for value in state.values()} == {torch.float32}
        factors = [value for key, value in state.items() if ".lora_B." in key]
        assert len(factors) == len(state) / 2
        # Nobody reads the text that the last block makes.
        assert sum(bool(value.any()) for value in factors) > 0.7 * len(factors)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_families_but_two_have_a_layer_that_embeds_the_time(name: str, folders):
    source = str(folders(name))
    assert (pipeline_step_layer(source, (1.0, 0.5)) is None) == (name in ("chroma", "dit"))
    assert pipeline_step_layer(source, (1.0,)) is None


# `experiment=distil` is run with the layers of the others.
@pytest.mark.parametrize("name", ["flux2", "qwen", "zimage", "pixart"])
def test_a_critic_in_bfloat16_is_told_the_step(name: str, folders):
    """As `experiment=distil` has it: LoRA on weights in bfloat16, all steps in every batch."""
    layer = pipeline_step_layer(str(source := folders(name)), (1.0, 0.5))
    # One update of the critic must be larger than bfloat16 rounds.
    asked = [*NARROW, *TWO_STEPS, "lora=both", "optimizer.critic.lr=0.1"]
    trained("told", *teacher(name, source), *asked, f"critic_step_layer={layer}")
    state = read_tensors(Path("told/checkpoints/critic.safetensors"))
    assert state["step_embedding.vectors"].any(dim=1).tolist() == [True, True]


@pytest.mark.parametrize("name", ["sd3", "flux2"])
def test_one_network_s_lora_and_all_of_the_other_s_weights(name: str, folders):
    trained("one", *teacher(name, folders(name)), *NARROW, "lora=generator")


@pytest.mark.parametrize("name", ["qwen", "chroma"])
def test_a_discriminator_reads_the_tokens_as_maps(name: str, folders, folder: Path):
    (folder / "images").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (SIZES[name],) * 2 + (3,), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        (folder / f"images/{i}.txt").write_text(f"a red dot {i}")
    codec = vae_of(str(folders(name)), SIZES[name])
    latents(folder / "images", folder / "latents", Decoder(SIZES[name]), codec, "caption", "stop")
    asked = [
        *teacher(name, folders(name)),
        *("data=latents", "data.source=latents", "data.captions.source=latents", "loss=dmd2"),
        *("teacher.head.width=8", "+teacher.head.num_groups=4", "teacher.denoiser.taps=[0.0,0.5]"),
    ]
    assert trained("plain", *asked) == trained("again", *asked, AGAIN)
    with Path("plain/metrics.csv").open() as file:
        (first, _) = csv.DictReader(file)
    assert any("gan" in key and float(value) > 0 for key, value in first.items())


@pytest.mark.parametrize("name", RELEASED)
def test_a_published_teacher_has_its_size_and_its_words(name: str):
    billions, width, side = RELEASED[name]
    section = composed(f"teacher={name}", *(CLASSES if name == "dit" else []))["teacher"]
    with torch.device("meta"):
        model = build(section["denoiser"]["model"])
        head = ConvHead(torch.Size([1, width, side, side]), width=section["head"]["width"])
    number = sum(p.numel() for p in model.parameters()) / 1e9
    assert number == pytest.approx(billions, rel=5e-3)
    about = (config_folder() / "teacher" / f"{name}.yaml").read_text()
    said = re.search(r"\(([\d.]+)B parameters", about)
    assert said is not None and float(said[1]) == billions
    millions = sum(p.numel() for p in head.parameters()) / 1e6
    if said := re.search(r"discriminator has ([\d.]+)M", about):
        assert float(said[1]) == pytest.approx(millions, abs=0.05)
    print(f"{name}: {number:.3f}B, discriminator {millions:.2f}M")
