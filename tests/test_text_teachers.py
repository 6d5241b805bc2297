"""Text teachers from a folder of diffusers', end to end and small: what they speak, what is
refused, what is seen.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.data.pairs import PairStore
from dmd2.io.hub import dtype_of
from dmd2.runs.build import build, build_data
from dmd2.runs.teacher import build_teacher, teacher_file
from pipelines import save_pipeline, save_variant, shrunken

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[text]'")

SMALL = ["trainer=cpu", "max_iterations=2", "log_every=1", "callbacks.samples.every=2"]
PROMPTS = [
    "experiment=sd15_dmd2",
    "metric=none",
    "data.captions.source=captions.txt",
    "global_batch=2",
    *SMALL,
]
VAE = ["resolution=16", "factor=2"]
EVERY = "callbacks.evaluation={_target_:dmd2.training.callbacks.Evaluation,every:2}"
SIZED = ["++teacher.head.num_groups=4"]


@pytest.fixture(autouse=True)
def folder(captioned: Path) -> Path:
    """A directory with ten captions."""
    return captioned


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def composed(*overrides: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolved(compose("train", overrides=[*PROMPTS, *overrides]))


def teacher(*overrides: str):
    config = composed(*overrides)
    found = build_teacher(config, build_data(config["data"]), teacher_file(config))
    found.load_or_train()
    return found


def test_a_pipeline_that_predicts_v_is_distilled_from_its_folder_and_sampled(folder: Path):
    save_pipeline(folder / "v", prediction="v_prediction")
    asked = [
        "teacher=pipeline",
        "teacher.source=v",
        *SIZED,
    ]
    assert teacher(*asked).denoiser.prediction == "v"
    dmd2("train", *PROMPTS, *asked)
    run = folder / "runs/sd15_dmd2/now"
    dmd2("sample", f"run={run}", "num_images=3", "out=samples")
    images = [np.asarray(Image.open(path)) for path in sorted(Path("samples").glob("0*.png"))]
    assert [image.shape for image in images] == [(16, 16, 3)] * 3 and np.std(images) > 0


def test_the_weights_are_the_folder_s_own_in_any_storage(folder: Path):
    theirs = diffusers.UNet2DConditionModel.from_pretrained(save_pipeline(folder / "sd") / "unet")
    theirs.half().save_pretrained(folder / "sd" / "unet", variant="fp16")
    ours = [
        teacher(*shrunken("sd15"), "teacher.source=sd", *more)
        for more in ([], ["teacher.variant=fp16"])
    ]
    for found, atol in zip(ours, (1e-3, 0), strict=True):
        assert found.denoiser.model.conv_in.weight.dtype == torch.float32
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(
                found.denoiser.model.state_dict()[name], value.float(), rtol=0, atol=atol
            )
    assert ours[0].key != ours[1].key


FROZEN = ["unet", "vae", "text_encoder", "text_encoder_2"]


@pytest.mark.parametrize("lacking", [None, "vae", "text_encoder_2"])
def test_the_variant_is_of_all_frozen_parts_and_what_lacks_it_is_named(
    lacking: str | None, folder: Path, recwarn
):
    """Weights of the variant are rounded to float16; a part's are the plain ones where it has none
    such.
    """
    saved = save_pipeline(folder / "sdxl", "sdxl")
    save_variant(saved, *(part for part in FROZEN if part != lacking))
    config = composed(
        "experiment=sdxl_ode_warmstart",
        *shrunken("sdxl"),
        "teacher.source=sdxl",
        "teacher.variant=fp16",
    )
    encoder, codec = (build(config["teacher"][name]) for name in ("conditioner", "autoencoder"))
    first, second = encoder.encoder.models
    found = {"vae": codec.network, "text_encoder": first, "text_encoder_2": second}
    for part, network in found.items():
        assert all(weight.dtype == torch.float32 for weight in network.parameters())
        is_rounded = all(
            torch.equal(weight, weight.half().float()) for weight in network.parameters()
        )
        assert is_rounded == (part != lacking), part
    named = [
        str(warning.message)
        for warning in recwarn
        if "the plain file is read" in str(warning.message)
    ]
    assert len(named) == (lacking is not None) and all(
        f"sdxl has no {lacking}/" in text for text in named
    )


def test_a_folder_without_the_u_net_s_variant_is_refused(folder: Path):
    save_variant(save_pipeline(folder / "sd"), "vae", "text_encoder")
    with pytest.raises(
        FileNotFoundError, match=r"sd has no unet/diffusion_pytorch_model\.fp16\.safetensors"
    ):
        teacher(*shrunken("sd15"), "teacher.source=sd", "teacher.variant=fp16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_frozen_parts_are_held_as_they_are_asked_for_and_speak_float32(dtype: str, folder: Path):
    save_variant(save_pipeline(folder / "sdxl", "sdxl"), *FROZEN)
    said = folder / "sdxl/vae/config.json"
    said.write_text(said.read_text().replace('"force_upcast": true', '"force_upcast": false'))
    asked = [f"+teacher.conditioner.encoder.dtype={dtype}", f"+teacher.autoencoder.dtype={dtype}"]
    given = [
        "experiment=sdxl_ode_warmstart",
        *shrunken("sdxl"),
        "teacher.source=sdxl",
        "teacher.variant=fp16",
    ]
    full, narrow = (composed(*given, *more)["teacher"] for more in ([], asked))
    (plain, cond), (theirs, ours) = (
        (build(s["autoencoder"]), build(s["conditioner"])) for s in (full, narrow)
    )
    assert {weight.dtype for weight in (*theirs.network.parameters(), *ours.parameters())} == {
        getattr(torch, dtype)
    }
    x, labels = (
        torch.randn(2, *plain.shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 3]),
    )
    for narrow_one, full_one in [
        (theirs.decode(x), plain.decode(x)),
        *zip(ours(labels).values(), cond(labels).values(), strict=True),
    ]:
        assert narrow_one.dtype == torch.float32
        torch.testing.assert_close(narrow_one, full_one, rtol=0.1, atol=0.05)


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(ValueError, match="float32, bfloat16, float16, got half"):
        dtype_of("half")


def test_a_teacher_is_refused_that_predicts_something_else(folder: Path):
    save_pipeline(folder / "v", prediction="v_prediction")
    with pytest.raises(
        ValueError, match=r"v predicts v_prediction.*teacher\.denoiser\.prediction=eps"
    ):
        teacher(*shrunken("sd15"), "teacher.source=v")


def test_a_sampler_that_noises_real_samples_is_refused_where_there_are_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    save_pipeline(folder / "sd")
    with pytest.raises(SystemExit):
        dmd2("train", *PROMPTS, *shrunken("sd15"), "teacher.source=sd", "sampler=four_step_real")
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "trains on real samples" in line
        and "gives only label" in line
        and "sampler=four_step," in line
    )


def test_sample_grids_may_be_decoded_by_a_tiny_vae(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    sd = save_pipeline(folder / "sd")
    blocks = {f"{half}_block_out_channels": (8, 8) for half in ("encoder", "decoder")}
    tiny = diffusers.AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    for parameter in tiny.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    tiny.save_pretrained(folder / "tiny")  # of any latents it makes one even picture
    given = [*PROMPTS, *shrunken("sd15"), f"teacher.source={sd}"]
    node = (
        "callbacks.samples.autoencoder="
        "{{_target_:dmd2.nets.TinyVAE,source:{},resolution:{},factor:2}}"
    )
    mistakes = (
        (
            node.format("gone/no/where", 16),
            "callbacks.samples.autoencoder: there is no pipeline at gone",
        ),
        (node.format("tiny", 32), "callbacks.samples.autoencoder=null"),
        (
            "callbacks.samples.autoencoder=some/name",
            "type e.g. callbacks.samples.autoencoder={_target_:",
        ),
    )
    for i, (wrong, words) in enumerate(mistakes):
        for name, rest in {
            "files": given,
            "trained_here": ["experiment=digits_dmd", "max_iterations=2"],
        }.items():
            with pytest.raises(SystemExit):
                dmd2("train", *rest, wrong, f"paths.run={name}{i}")
            assert words in capsys.readouterr().err.splitlines()[-1]
    assert not Path("cache/teachers").exists() and not Path("cache/pairs").exists()
    num_colours = []
    for autoencoder in (node.format("tiny", 16), "callbacks.samples.autoencoder=null"):
        dmd2("train", *given, autoencoder, f"paths.run=run{len(num_colours)}")
        picture = Image.open(f"run{len(num_colours)}/samples/00000002.png").convert("RGB")
        num_colours.append(len(picture.getcolors(picture.width * picture.height)))
    assert num_colours[0] * 4 < num_colours[1], num_colours  # the title has some greys


def test_latents_are_scored_and_shown_as_images(folder: Path):
    save_pipeline(folder / "sd")
    (folder / "images").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:02}.png")
        (folder / "images" / f"{i:02}.txt").write_text(f"a red dot {i}")
    sized = ["recipe.autoencoder.source=sd", *(f"++recipe.autoencoder.{text}" for text in VAE)]
    dmd2("prepare", "recipe=latents", "source=images", "out=latents", *sized)
    scored = [
        "metric=digits",
        "~metric.suite.detectors.classes",
        "~metric.suite.metrics.accuracy",
        "~metric.suite.metrics.nearest",
        "metric.baselines={}",
    ]
    scored += ["metric.num_samples=12", "metric.teacher_steps=[1]", EVERY]
    given = [
        "experiment=sd15_dmd2",
        "data=latents",
        "data.source=latents",
        "data.captions.source=latents",
        "loss=dmd2",
    ]
    dmd2("train", *given, "global_batch=4", *SMALL, *scored, *shrunken("sd15"), "teacher.source=sd")
    run = folder / "runs/sd15_dmd2/now"
    assert (run / "comparison.png").exists() and (run / "report.html").exists()
    mismatch = ["teacher.autoencoder.scaling_factor=0.5", "metric=none"]
    with pytest.raises(SystemExit):
        dmd2(
            "train",
            *given,
            "global_batch=4",
            *SMALL,
            *shrunken("sd15"),
            "teacher.source=sd",
            *mismatch,
        )


@pytest.mark.parametrize("negative", ["null", "red a"])
def test_pairs_are_those_of_diffusers_ddim_under_guidance(negative: str, folder: Path):
    save_pipeline(folder / "sd")
    few = [
        f"teacher.negative={negative}",
        "pairs.num_pairs=3",
        "pairs.solver.num_steps=4",
        "pairs.at_once=2",
        "loss=dmd",
    ]
    given = [
        "experiment=sd15_dmd",
        "metric=none",
        "data.captions.source=captions.txt",
        "global_batch=2",
        *SMALL,
    ]
    dmd2("pairs", *given, *few, *shrunken("sd15"), "teacher.source=sd", "teacher.dtype=null")
    store = PairStore(next(path.parent for path in Path("cache/pairs").glob("*/manifest.json")))
    found = teacher(*shrunken("sd15"), "teacher.source=sd")
    cond = found.conditioner(torch.from_numpy(np.array(store.labels)))
    encoder = found.conditioner.encoder
    with torch.no_grad():
        null = encoder(encoder.tokens([negative.replace("null", "")] * 3))["text"]
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
    }
    theirs = diffusers.DDIMScheduler(**settings, timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.set_timesteps(4)
    x, model = torch.from_numpy(np.array(store.noise)).float(), found.denoiser.model
    with torch.no_grad():
        for row in theirs.timesteps:
            plain, free = (model(x, row, text).sample for text in (cond["text"], null))
            x = theirs.step(free + 3.0 * (plain - free), row, x).prev_sample
    torch.testing.assert_close(
        torch.from_numpy(np.array(store.images)).float(), x, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@pytest.mark.parametrize("kind", ["eps", "flow", "shards"])
def test_any_pipeline_is_distilled_from_what_its_files_say(
    kind: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A small training, sampled from another directory; and x0 as the stock parts make it."""
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0) if kind == "flow" else None
    shard = "60KB" if kind == "shards" else None
    save_pipeline(folder / "own", name, scheduler=shifted, shard=shard)
    asked = ["teacher=pipeline", "teacher.source=own", *SIZED]
    found = teacher(*asked).denoiser
    stock = diffusers.UNet2DConditionModel.from_pretrained(folder / "own" / "unet").eval()
    generator = torch.Generator().manual_seed(0)
    x, text = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 8, 16)))
    cond, added = {"text": text}, {}
    if name == "sdxl":
        cond = {"text": torch.cat([text, text], -1), "pooled": text[:, 0, :6]}
        cond["time_ids"] = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(2, -1)
        added = {"text_embeds": cond["pooled"], "time_ids": cond["time_ids"]}
    told = torch.tensor([900.0, 500.0]) if kind == "flow" else torch.tensor([749, 249])
    with torch.no_grad():
        ours = found(x, torch.tensor([0.75, 0.25]), cond)
        out = stock(x, told, cond["text"], added_cond_kwargs=added).sample
    if kind == "flow":
        theirs = x - (told / 1000).view(2, 1, 1, 1) * out
    else:
        settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        alpha2 = diffusers.DDIMScheduler(**settings).alphas_cumprod[told].view(2, 1, 1, 1)
        theirs = (x - (1 - alpha2).sqrt() * out) / alpha2.sqrt()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    dmd2("train", *PROMPTS, *asked)
    run = folder / "runs/sd15_dmd2/now"
    # From another directory, with another file under the name of the run's captions.
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    Path("captions.txt").write_text("another")
    dmd2("sample", f"run={run}", "num_images=3", "out=samples")
    assert len(list(Path("samples").glob("0*.png"))) == 3
    if kind != "flow":
        dmd2("export", f"run={run}", "out=exported")
        assert Path("exported/unet/config.json").exists()


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_flow_is_no_teacher_that_predicts_noise(name: str, folder: Path):
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    save_pipeline(folder / "flow", name, scheduler=shifted)
    with pytest.raises(ValueError, match=r"predicts flow_prediction.*prediction=eps"):
        teacher(f"teacher={name}", *shrunken(name), "teacher.source=flow")
