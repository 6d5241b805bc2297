"""LoRA's runs, and what is exported: stock diffusers draws from the folder what our own sampler
draws.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.diffusion.schedules import VP
from dmd2.evaluation.samples import SampleSet
from dmd2.io.tensors import names_in, save_tensors
from dmd2.nets.lora import is_own
from dmd2.runs.build import build
from dmd2.runs.export_sampling import lcm_scheduler
from dmd2.runs.load import load_student
from dmd2.training.checkpoints import load
from pipelines import save_pipeline, save_variant, shrunken

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[text]'"
)
pytest.importorskip("peft", reason="peft is not installed: pip install '.[text]'")

FAR = [
    "max_iterations=4",
    "critic_updates=1",
    "data.batch_size=4",
    "log_every=1",
    "checkpoint.every=2",
    "callbacks.samples=null",
    "optimizer.generator.lr=0.02",
    "optimizer.lr_factor.warmup=0",
]
"""A run that moves the generator far in a few steps."""
SMALL = [*FAR, "metric.num_samples=20", "metric.num_reference=40", "metric.teacher_steps=[1]"]
FROM_CAPTIONS = [
    "data=prompts",
    "~data.source",
    "data.captions.source=captions.txt",
    "loss=no_gan",
    "~loss.generator.gan",
]
FOUR, ONE, BELOW = [999, 749, 499, 249], [399], [399, 299, 199, 99]
ALL_TIMES = "sampler.times=[1.0,0.75,0.5,0.25]"
WEIGHTS = ["unet", "vae", "text_encoder", "text_encoder_2"]


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def pipeline_of_a_teacher(folder: Path) -> list[str]:
    """A small Stable Diffusion with random weights in `folder`; overrides that make it the
    teacher.
    """
    section = OmegaConf.load(config_folder() / "teacher" / "text_digits.yaml")
    section.denoiser.gradient_checkpointing = False  # what `memory` says of it in a whole config
    torch.manual_seed(0)
    denoiser, encoder = build(section.denoiser), build(section.conditioner.encoder)
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    vae = diffusers.AutoencoderKL(
        **blocks,
        block_out_channels=[8, 16],
        norm_num_groups=4,
        latent_channels=1,
        scaling_factor=0.5,
    )
    noise = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
    )
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder.models[0],
        tokenizer=encoder.tokenizers[0],
        unet=denoiser.model,
        scheduler=noise,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    save_tensors(denoiser.state_dict(), folder / "teacher.safetensors")
    node = f"{{_target_:dmd2.nets.text.clip.clip,source:{folder}}}"
    return [
        f"teacher.weights={folder / 'teacher.safetensors'}",
        "~teacher.conditioner.encoder",
        f"+teacher.conditioner.encoder={node}",
    ]


def of_halves(folder: Path) -> list[str]:
    """A small SDXL in `folder`, all weights in files of the variant fp16; overrides that make it
    the teacher.
    """
    save_variant(save_pipeline(folder, "sdxl"), *WEIGHTS)
    for part in WEIGHTS:
        (plain,) = (
            path for path in (folder / part).glob("*.safetensors") if ".fp16." not in path.name
        )
        plain.unlink()
    return [*shrunken("sdxl"), f"teacher.source={folder}", "teacher.variant=fp16"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and their exports: four steps on a pipeline, the same along the ODE, and with LoRA, one
    step on pixels, SDXL's LoRA.
    """
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DMD2_RUN_ID", "now")
        patch.setattr(sys, "argv", sys.argv)
        teacher = pipeline_of_a_teacher(folder / "teacher")
        Path("captions.txt").write_text("a red dot\na dot\na red\n")
        experiments = {
            "four": ["text2digits_dmd2_4step", *SMALL, *teacher],
            "walk": [
                "text2digits_dmd2_4step",
                *SMALL,
                *teacher,
                "sampler=four_step_ode",
                ALL_TIMES,
            ],
            "lora": ["text2digits_dmd2_4step_lora", *SMALL, *teacher, "lora=both", ALL_TIMES],
            "one": [
                "text2digits_dmd2",
                *SMALL,
                "teacher.pretrain.max_iterations=1",
                "teacher.negative=no digit",
            ],
            "xl": [
                "sdxl_dmd2_4step_lora",
                *FAR,
                *FROM_CAPTIONS,
                *of_halves(folder / "xl"),
                "metric=none",
                "trainer=cpu",
                "global_batch=null",
                "teacher.dtype=null",  # or our sampler computes with bfloat16 weights
            ],
        }
        for name, (experiment, *more) in experiments.items():
            dmd2("train", f"experiment={experiment}", *more, f"paths.run=runs/{name}")
            dmd2("export", f"run=runs/{name}", f"out=out/{name}")
        dmd2(
            "train",
            "experiment=text2digits_dmd2_4step_lora",
            ALL_TIMES,
            *SMALL,
            *teacher,
            "lora=both",
            "paths.run=runs/again",
            "resume=runs/lora/checkpoints/00000002.ckpt",
        )
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


def drawn(name: str) -> tuple[list[str], Tensor, Tensor]:
    """Captions, the noise that a run's student begins with, and what our sampler makes of them."""
    student = load_student(Path("runs", name))
    student.read(None)
    draw = torch.Generator().manual_seed(0)
    noise = [torch.randn(3, *student.data.shape, generator=draw) for _ in student.sampler.times]
    with torch.no_grad():
        x0 = student.sampler.sample(student.generator, noise, student.conditioner(torch.arange(3)))
    return build(student.config["data"]["captions"])[:3], noise[0], x0


def stock(
    pipe: Any,
    captions: list[str],
    first: Tensor,
    timesteps: list[int] | None,
    output: str = "latent",
) -> Tensor:
    """What a pipeline makes of the same noises."""
    draw = torch.Generator().manual_seed(0)
    torch.randn(first.shape, generator=draw)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        captions,
        num_inference_steps=4,
        timesteps=timesteps,
        guidance_scale=0.0,
        latents=first,
        generator=draw,
        output_type=output,
    ).images


@pytest.mark.parametrize(
    ("name", "timesteps"),
    [("four", BELOW), ("walk", None), ("lora", FOUR), ("one", ONE), ("xl", FOUR)],
)
def test_stock_diffusers_draws_what_our_sampler_draws(name: str, timesteps: list[int] | None):
    captions, first, x0 = drawn(name)
    absent = {"vae": None} if name == "one" else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(f"out/{name}", **absent)
    found = stock(pipe, captions, first, timesteps)
    torch.testing.assert_close(found, x0, rtol=1e-4, atol=1e-4)
    if name != "one":
        with torch.no_grad():
            expected = pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample / 2 + 0.5
        images = stock(pipe, captions, first, timesteps, "pt")
        torch.testing.assert_close(images, expected.clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_stock_diffusers_draws_the_picture_that_dmd2_sample_wrote(monkeypatch: pytest.MonkeyPatch):
    dmd2("sample", "run=runs/xl", "num_images=3", "out=samples", "seed=7")
    written = np.stack([np.asarray(Image.open(f"samples/{i:06d}.png")) for i in range(3)])
    student, pipe = (
        load_student(Path("runs/xl")),
        diffusers.DiffusionPipeline.from_pretrained("out/xl"),
    )
    samples = SampleSet(student.data.shape, student.conditioner.num_classes, 7)
    first, *later = (samples.noise(range(3), i) for i in range(4))
    # Sample i's noises are functions of its number, and a pipeline takes but the first.
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: later.pop(0)
    )
    captions = Path("captions.txt").read_text().splitlines()
    drawn = np.stack([np.asarray(picture) for picture in stock(pipe, captions, first, FOUR, "pil")])
    assert not later and written.shape == drawn.shape == (3, 16, 16, 3) and written.std() > 10
    assert np.abs(drawn.astype(int) - written).max() <= 1


def test_lora_s_weights_alone_make_the_teacher_s_pipeline_the_student_s():
    captions, first, x0 = drawn("lora")
    pipe = diffusers.DiffusionPipeline.from_pretrained("teacher")
    pipe.scheduler = diffusers.LCMScheduler.from_pretrained("out/lora/scheduler")
    assert (stock(pipe, captions, first, FOUR) - x0).abs().max() > 0.1
    pipe.load_lora_weights("out/lora/lora")
    torch.testing.assert_close(stock(pipe, captions, first, FOUR), x0, rtol=1e-4, atol=1e-4)


def test_its_parts_load_one_by_one():
    unet = diffusers.UNet2DConditionModel.from_pretrained("out/one", subfolder="unet")
    tokenizer = transformers.CLIPTokenizer.from_pretrained("out/one", subfolder="tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained("out/one", subfolder="text_encoder")
    times = diffusers.LCMScheduler.from_pretrained("out/one", subfolder="scheduler")
    captions, first, x0 = drawn("one")
    tokens = tokenizer(captions, padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        output = unet(first, 399, encoder(tokens).last_hidden_state).sample
    times.set_timesteps(timesteps=ONE)
    torch.testing.assert_close(times.step(output, 399, first).denoised, x0, rtol=1e-4, atol=1e-4)


def test_the_scheduler_s_own_steps_are_the_trained_ones():
    times = diffusers.LCMScheduler.from_pretrained("out/four/scheduler")
    times.set_timesteps(4)
    assert times.timesteps.tolist() == FOUR
    assert (times.config.beta_schedule, times.config.beta_end) == ("scaled_linear", 0.012)


def test_any_table_and_prediction_reach_the_scheduler():
    cosine = torch.cos(torch.linspace(0.01, 1.5, 500, dtype=torch.float64)) ** 2
    found = lcm_scheduler(VP(cosine), "v", [499, 249])
    assert found.config.prediction_type == "v_prediction"
    torch.testing.assert_close(found.alphas_cumprod.double(), cosine, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["four", "walk", "lora", "one", "xl"])
def test_the_card_says_where_it_comes_from_and_its_code_runs(name: str):
    text = Path("out", name, "README.md").read_text()
    head = OmegaConf.create(text.split("---\n")[1])
    summary = json.loads(Path("runs", name, "summary.json").read_text())
    assert (
        head.dmd2.timesteps == {"one": ONE, "four": BELOW}.get(name, FOUR)
        and head.dmd2.commit == summary["commit"]
    )
    assert head.dmd2.metrics == summary["metrics"] and ("| student, raw |" in text) == (
        name != "xl"
    )
    guided = {"one": 'Guidance (1.5, away from "no digit")', "xl": "Guidance (8)"}
    assert guided.get(name, "Its teacher had no guidance") in text
    assert ("license: openrail++" in text) == (name == "xl")
    first, *others = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(others) == (name in ("lora", "xl"))
    for block in (first, *others):
        scope: dict[str, Any] = {}
        exec(block.replace("DIR", str(Path("out", name))), scope)
        assert "images" not in scope or len(scope["images"]) == 1


def test_a_run_with_lora_saves_its_own_weights_and_goes_on_bit_by_bit():
    whole, again = (
        load(Path("runs", run, "checkpoints", "00000004.ckpt")) for run in ("lora", "again")
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(again[part], whole[part], rtol=0, atol=0)
    state = whole["state_dict"]
    beside = ("critic.discriminator.", "critic.step_embedding.")
    assert all(".lora_" in name for name in state if not name.startswith(beside))
    assert {name.split(".")[0] for name in state} == {"generator", "critic", "ema"}
    assert any(
        weight.abs().max() > 0
        for name, weight in state.items()
        if "critic.denoiser" in name and "_B." in name
    )
    assert all(
        ".lora_" in name for name in names_in(Path("runs/lora/checkpoints/student.safetensors"))
    )


def test_lora_stays_float32_on_a_teacher_of_half_its_width():
    config = OmegaConf.load("runs/lora/config.yaml")
    config.teacher.dtype = "bfloat16"
    shutil.copytree("runs/lora", "runs/narrow")
    OmegaConf.save(config, "runs/narrow/config.yaml")
    weights = load_student(Path("runs/narrow")).generator.model.named_parameters()
    assert {is_own(name): weight.dtype for name, weight in weights} == {
        True: torch.float32,
        False: torch.bfloat16,
    }


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        dmd2("export", *arguments)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dmd2:")]
    return line


def test_what_cannot_be_exported_is_answered_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = resolved(compose("train", overrides=["experiment=digits_dmd2"]))
    Path("runs/digits").mkdir()
    OmegaConf.save(OmegaConf.create(config), "runs/digits/config.yaml")
    assert "is of a DhariwalUNet, and only" in refused(capsys, "run=runs/digits", "out=new")
    assert "out/four is not empty" in refused(capsys, "run=runs/four", "out=out/four")
    assert "nope" in refused(capsys, "run=runs/four", "out=new", "weights=nope")
    assert not Path("new").exists()


def test_lora_on_another_teacher_is_refused(capsys: pytest.CaptureFixture[str]):
    path = Path("teacher", "teacher.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert f"{path.resolve()} is not the teacher" in refused(capsys, "run=runs/lora", "out=new")
    finally:
        path.write_bytes(content)
