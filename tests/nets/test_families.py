"""Transformers of diffusers as denoisers: few steps as the stock pipelines make them, features,
rows that nobody decodes, noise levels, and what is refused.
"""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmd2.diffusion import VP, ClassLabels, Cond, Flow, Guidance, ODEWalk, guided
from dmd2.io.hub import weights_of
from dmd2.nets import (
    Flux,
    Flux2,
    from_configs,
    pipeline_encoder,
    pipeline_guidance,
    pipeline_vae,
)
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.pipeline import check_agrees
from dmd2.nets.pipeline_noise import noise_of
from dmd2.runs.weights import load_denoiser
from families import FAMILIES, SIZES
from pipelines import save_pipeline

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)

CAPTIONS = ["A red dot", "two small dots, one of them Green and the other one blue"]
SHAPES = {name: (4, 8, 12) for name in FAMILIES}
SHAPES |= {"sana": (4, 16, 32), "flux2": (16, 4, 6), "dit": (4, 8, 8)}
"""Latents [C, H, W], which are no square where the family allows it."""
TIMES = [1.0, 0.75, 0.4]
"""Three steps: noise levels before the shift, which our schedules call t."""
ROWS = [999, 749, 499, 249]
"""The steps of the families of a table of betas."""
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def build(folder: Path, **arguments: Any) -> DiffusersNet:
    """The denoiser of a folder."""
    return from_configs(str(folder), **{"taps": [], "gradient_checkpointing": False} | arguments)


def load(folder: Path, **arguments: Any) -> DiffusersNet:
    """The same with its weights."""
    denoiser = build(folder, **arguments)
    load_denoiser(denoiser, weights_of(folder, None))
    return denoiser.eval()


def conds(name: str, folder: Path) -> tuple[Cond, Cond]:
    """The condition of both captions, or of two classes, and of none."""
    if name == "dit":
        labels = ClassLabels(1000)
        cond = labels(torch.tensor([3, 700]))
        return cond, labels.null(cond)
    encoder = pipeline_encoder(str(folder))
    with torch.no_grad():
        cond, null = encoder(encoder.tokens(CAPTIONS)), encoder(encoder.null_tokens(None))
    return cond, {key: value.expand(2, *value.shape[1:]) for key, value in null.items()}


def noise_for(name: str, num: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(num, *SHAPES[name], generator=torch.Generator().manual_seed(seed))


def stock(folder: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Guided:
    """A denoiser under guidance, as a walk wants it."""

    def __init__(self, denoiser: DiffusersNet, null: Cond, guidance: float | Guidance) -> None:
        self.denoiser, self.null, self.guidance = denoiser, null, guidance
        self.schedule = denoiser.schedule

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return guided(self.denoiser, x_t, t, cond, self.null, self.guidance)


def walked(name: str, folder: Path, noise: Tensor) -> Tensor:
    """A few steps of ours, all of it as the folder says."""
    cond, null = conds(name, folder)
    found = Guided(load(folder), null, pipeline_guidance(str(folder)))
    times = [(row + 1) / 1000 for row in ROWS] if name in ("pixart", "dit") else TIMES
    return ODEWalk(times).sample(found, [noise], cond)


def stock_walked(name: str, folder: Path, noise: Tensor) -> Tensor:
    """The same steps by the pipeline of diffusers."""
    pipeline = stock(folder)
    height, width = (SIZES[name] * n // (16 if name == "sana" else 8) for n in noise.shape[-2:])
    if name == "flux2":
        height, width = 2 * height, 2 * width
    scale = pipeline_guidance(str(folder))
    given: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": scale}
    if name in ("pixart", "dit"):
        ddim = diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing")
        pipeline.scheduler, given["num_inference_steps"] = ddim, len(ROWS)
    else:
        shift = load(folder).schedule.shift
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        given["sigmas"] = TIMES
    if name == "dit":
        seen: list[Tensor] = []
        decode = pipeline.vae.decode
        pipeline.vae.decode = lambda z: seen.append(z) or decode(z)
        generator = torch.Generator().manual_seed(0)
        pipeline([3, 700], scale, generator, len(ROWS), output_type="np")
        return seen[0] * pipeline.vae.config.scaling_factor
    if name == "flux":
        given["guidance_scale"] = 3.5
    elif name == "qwen":
        given |= {"true_cfg_scale": scale.scale, "negative_prompt": " ", "guidance_scale": None}
    elif name == "zimage":
        given["guidance_scale"] = scale - 1
    elif name in ("sana", "pixart"):
        given |= {"use_resolution_binning": False, "clean_caption": False}
    elif name == "chroma":
        forward = pipeline.transformer.forward
        pipeline.transformer.forward = lambda *args, attention_mask, **kwargs: forward(
            *args, attention_mask=attention_mask.bool(), **kwargs
        )
    packs = hasattr(pipeline, "_pack_latents") and name != "flux2"
    latents = pipeline._pack_latents(noise, *noise.shape) if packs else noise
    if name != "pixart":
        seen = []
        given["callback_on_step_end"] = lambda _p, _i, _t, said: seen.append(said["latents"]) or {}
    (last, *_) = pipeline(
        prompt=[*CAPTIONS],  # Z-Image's writes its template into the list
        height=height,
        width=width,
        latents=latents,
        output_type="latent",
        return_dict=False,
        **given,
    )
    if name == "pixart":
        return last
    if name == "flux2":
        places = pipeline._prepare_latent_ids(noise)
        return pipeline._unpack_latents_with_ids(seen[-1], places)
    if packs:
        return pipeline._unpack_latents(seen[-1], height, width, pipeline.vae_scale_factor).reshape(
            noise.shape
        )
    return seen[-1]


@pytest.mark.parametrize("name", FAMILIES)
def test_few_steps_are_those_of_the_stock_pipeline(name: str, folders):
    folder = folders(name)
    noise = noise_for(name)
    theirs, ours = stock_walked(name, folder, noise), walked(name, folder, noise)
    assert theirs.shape == ours.shape and theirs.std() > 0.1
    found = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))
    print(f"{name}: {found:.1e} of latents of {theirs.std():.2f}")
    assert found <= 1e-5


def test_chroma_s_padding_counts_in_the_stock_pipeline_and_not_here(folders):
    """A mask of floats is added to the attention's logits, and masks nothing."""
    cond, _ = conds("chroma", folders("chroma"))
    junk = torch.where(cond["mask"][..., None], cond["text"], 7.0)
    denoiser, noise, t = load(folders("chroma")), noise_for("chroma"), torch.full((2,), 0.7)
    with torch.no_grad():
        ours, same = (denoiser.predict(noise, t, cond | {"text": x}) for x in (cond["text"], junk))
        forward = denoiser.model.forward
        denoiser.model.forward = lambda *args, **kw: forward(*args[:-1], args[-1].float(), **kw)
        theirs, other = (
            denoiser.predict(noise, t, cond | {"text": x}) for x in (cond["text"], junk)
        )
    assert torch.equal(ours, same)
    assert (theirs - other).abs().max() > 1e-2


def short_conds(name: str, folder: Path, num: int = 24) -> Cond:
    """A condition of five rows of unequal lengths, cut to `num` tokens."""
    cond, null = conds(name, folder)
    found = {}
    for key, value in cond.items():
        rows = torch.stack([value[0], value[1], null[key][0], value[1], value[0]])
        found[key] = rows[:, :num] if key in ("text", "mask") else rows
    if "mask" in found:
        found["mask"][0, num // 2 :] = False
        found["text"] = found["text"] * found["mask"][..., None]
    return found


Passed = tuple[Tensor, list[Tensor], list[Tensor]]


def passed(denoiser: DiffusersNet, cond: Cond, x: Tensor, num: int | None, kept: int) -> Passed:
    """Last `kept` rows of a pass that decodes `num` of five, features, and gradients of both with
    respect to x and the parameters.
    """
    x = x.clone().requires_grad_()
    t = torch.linspace(0.9, 0.2, 5)
    encoding = denoiser.encode(x, t, cond, num)
    outputs = denoiser.decode(encoding) if num != 0 else encoding.state[0]
    outputs = outputs[len(outputs) - kept :]
    loss = outputs.square().sum() + sum(f.float().square().sum() for f in encoding.features)
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [x, *parameters], allow_unused=True)
    zeros = zip(gradients, [x, *parameters], strict=True)
    filled = [torch.zeros_like(p) if g is None else g.detach() for g, p in zeros]
    return outputs.detach(), [f.detach() for f in encoding.features], filled


def same(ours: Passed, theirs: Passed, tolerance: float) -> None:
    # A gradient that is zero but for rounding, as that of a key's bias, has no size of its own.
    floor = 1e-2 * max(float(b.abs().max()) for b in theirs[2])
    for a, b in zip(
        [ours[0], *ours[1], *ours[2]], [theirs[0], *theirs[1], *theirs[2]], strict=True
    ):
        assert a.shape == b.shape
        if a.numel():
            assert (a - b).abs().max() <= tolerance * max(float(b.abs().max()), floor)


@pytest.mark.parametrize("tap", [0.0, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_that_nobody_decodes_are_dropped_and_activations_computed_again(
    name: str, tap: float, folders
):
    cond, x = short_conds(name, folders(name)), noise_for(name, 5)
    plain, again = (
        load(folders(name), taps=[tap], gradient_checkpointing=value) for value in (False, True)
    )
    whole = {kept: passed(plain, cond, x, None, kept) for kept in (0, 2, 5)}
    hooks = num_hooks(plain.model)
    few = passed(plain, cond, x, 2, 2)
    assert len(few[1]) == 1 and (plain.behind_taps or tap > 0)
    same(few, whole[2], 1e-5)
    # No row: the pass ends behind the tap, and features and their gradients are the very same.
    same(passed(plain, cond, x, 0, 0), whole[0], 0)
    same(passed(again, cond, x, 0, 0), whole[0], 0)
    # Computed again: the very same numbers, also in a copy, as the student and the critic are.
    same(passed(again, cond, x, None, 5), whole[5], 0)
    same(passed(copy.deepcopy(again), cond, x, 2, 2), few, 0)
    same(passed(copy.deepcopy(plain), cond, x, 2, 2), few, 0)
    # The tap's hook stays, and no other.
    assert num_hooks(plain.model) == hooks and sum(hooks) == 1


def num_hooks(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_finite_and_speaks_float32(name: str, folders):
    cond, x = short_conds(name, folders(name)), noise_for(name, 5)
    full = load(folders(name), taps=[0.5], gradient_checkpointing=True)
    half = copy.deepcopy(full)
    nn.Module.to(half.model, torch.bfloat16)
    theirs, ours = (passed(denoiser, cond, x, 2, 2) for denoiser in (full, half))
    assert ours[0].dtype == torch.float32 and ours[1][0].dtype == torch.bfloat16
    assert all(value.isfinite().all() for value in (ours[0], *ours[1], *ours[2]))
    assert (ours[0] - theirs[0]).abs().max() < 0.5 * theirs[0].abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_maps_of_the_image(name: str, folders):
    cond, x = short_conds(name, folders(name)), noise_for(name, 5)
    denoiser = load(folders(name), taps=[0.0, 0.5])
    patch = denoiser.patch_of(denoiser.model.config)
    height, width = (size // patch for size in x.shape[-2:])
    row, column = height - 1, width // 2
    changed = x.clone()
    changed[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 20
    with torch.no_grad():
        maps, others = (
            denoiser.features(each, torch.full((5,), 0.5), cond) for each in (x, changed)
        )
    assert [m.shape[0] for m in maps] == [5, 5]
    assert {m.shape[-2:] for m in maps} == {(height, width)}
    difference = (maps[0] - others[0]).square().sum(1)
    assert difference.flatten(1).argmax(1).tolist() == [row * width + column] * 5


def test_a_depth_is_a_block_of_all_stacks():
    model = {"num_layers": 19, "num_single_layers": 38, **SMALL_FLUX}
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(**model)
    found = Flux(network, Flow(), taps=[0.0, 0.5, 0.75, 0.99, 1.0, "norm_out"])
    assert found.taps == (
        "transformer_blocks.0",
        *(f"single_transformer_blocks.{i}" for i in (28 - 19, 42 - 19, 56 - 19, 56 - 19)),
        "norm_out",
    )
    for tap in (1.5, -0.1):
        with pytest.raises(ValueError, match=f"a depth from 0 to 1, got {tap}"):
            Flux(network, Flow(), taps=[tap])


SMALL_FLUX = {
    "num_attention_heads": 1,
    "attention_head_dim": 16,
    "in_channels": 16,
    "joint_attention_dim": 8,
    "pooled_projection_dim": 8,
    "axes_dims_rope": (4, 4, 8),
}


@pytest.mark.parametrize("name", ["flux", "flux2", "chroma", "qwen"])
@pytest.mark.parametrize("pixels", [256, 512, 1024, 1536])
def test_a_shift_that_depends_on_tokens_is_diffusers_own(name: str, pixels: int, folders):
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu  # noqa: PLC0415
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift  # noqa: PLC0415

    num = (pixels // 16) ** 2
    schedule, prediction = noise_of(folders(name), num)
    stock = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        folders(name), subfolder="scheduler", shift_terminal=None
    )
    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(num, *(stock.config[key] for key in keys))
    # FLUX.2's depends on the number of steps too: the teacher's 50.
    stock.set_timesteps(sigmas=TIMES, mu=compute_empirical_mu(num, 50) if name == "flux2" else mu)
    found = schedule.alpha_sigma(torch.tensor(TIMES))[1]
    assert prediction == "flow"
    torch.testing.assert_close(found, stock.sigmas[:-1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        schedule.network_time(torch.tensor(TIMES)), stock.timesteps, rtol=1e-6, atol=1e-3
    )


@pytest.mark.parametrize("name, shift", [("sd3", 3.0), ("zimage", 6.0), ("auraflow", 1.73)])
def test_a_shift_of_any_size_is_diffusers_own(name: str, shift: float, folders):
    schedule, _ = noise_of(folders(name))
    stock = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    stock.set_timesteps(sigmas=TIMES)
    found = schedule.alpha_sigma(torch.tensor(TIMES))[1]
    torch.testing.assert_close(found, stock.sigmas[:-1], rtol=1e-6, atol=1e-6)


def test_a_flow_in_a_solver_of_tables_and_linear_betas_are_read(folders):
    schedule, prediction = noise_of(folders("sana"))
    stock = diffusers.DPMSolverMultistepScheduler.from_pretrained(
        folders("sana"), subfolder="scheduler"
    )
    stock.set_timesteps(4)
    times = 0.999 * torch.tensor([1.0, 0.75, 0.5, 0.25])
    found = schedule.alpha_sigma(times)[1]
    assert prediction == "flow"
    torch.testing.assert_close(found, stock.sigmas[:-1], rtol=1e-4, atol=1e-4)
    for name in ("pixart", "dit"):
        schedule, prediction = noise_of(folders(name))
        table = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        assert isinstance(schedule, VP) and prediction == "eps"
        torch.testing.assert_close(schedule.alphas_cumprod, table, rtol=1e-5, atol=0)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


NETWORK, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    "name, file, changes, words",
    [
        ("sd3", NETWORK, {"_class_name": "HunyuanDiT2DModel"}, "is a HunyuanDiT2DModel, and known"),
        ("sd3", NETWORK, {"in_channels": 9}, "reads 9 channels and makes 4: it is one for inpaint"),
        ("qwen", NETWORK, {"in_channels": 32}, "reads 32 channels and makes 4"),
        ("flux", NETWORK, {"in_channels": 64, "out_channels": 16}, "reads 64 channels and makes"),
        ("sana", NETWORK, {"guidance_embeds": True}, r"distilled already \(guidance_embeds=True\)"),
        ("qwen", NETWORK, {"zero_cond_t": True}, r"an image to edit \(zero_cond_t=True\)"),
        ("zimage", NETWORK, {"siglip_feat_dim": 8}, "an image beside the text"),
        ("sd3", SCHEDULER, {"_class_name": "SCMScheduler"}, "'SCMScheduler', of which nothing"),
        ("flux", NETWORK, {"guidance_embeds": False}, "few steps already .*schnell.*=allow"),
        ("zimage", SCHEDULER, {"shift": 3.0}, r"few steps already \(a Z-Image of shift 3 is Turbo"),
        ("flux2", "model_index.json", {"is_distilled": True}, "few steps already .*is_distilled"),
        ("sd3", "model_index.json", {"_name_or_path": "x/SD3.5-Turbo"}, "its name is x/SD3.5-Turb"),
        ("sana", NETWORK, {"_name_or_path": "y/sana-sprint"}, "few steps already .*sana-sprint"),
    ],
    ids=str,
)
def test_what_no_denoiser_here_is_is_refused_in_one_line(
    name: str, file: str, changes: dict[str, Any], words: str, folders, tmp_path: Path
):
    folder = Path(shutil.copytree(folders(name), tmp_path / "own"))
    edit(folder / file, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        build(folder)
    assert "\n" not in str(caught.value)
    if "few steps" in words or "its name" in words:
        build(folder, distilled="allow")


@pytest.mark.parametrize("name", ["SD3.5-Turbo", "FLUX.1-schnell", "Qwen-Image-Lightning"])
def test_a_folder_s_own_name_tells_a_distilled_network(name: str, folders, tmp_path: Path):
    folder = Path(shutil.copytree(folders("sd3"), tmp_path / name))
    with pytest.raises(ValueError, match=f"its name is {name}.*teacher.distilled=allow"):
        build(folder)
    build(folder, distilled="allow")


def test_a_guidance_scale_is_told_to_networks_that_read_one(folders, tmp_path: Path):
    assert build(folders("flux")).embedded_guidance == 3.5
    assert build(folders("flux"), embedded_guidance=1.0).embedded_guidance == 1.0
    assert pipeline_guidance(str(folders("flux"))) == 1.0
    network = build(folders("flux")).model
    with pytest.raises(ValueError, match=r"type e\.g\. teacher\.embedded_guidance=3\.5"):
        Flux(network, Flow())
    for name in ("sd3", "flux2"):
        with pytest.raises(ValueError, match=r"no guidance scale; type .*embedded_guidance=null"):
            build(folders(name), embedded_guidance=3.5)
    with pytest.raises(ValueError, match=r"no guidance scale; type .*embedded_guidance=null"):
        Flux2(build(folders("flux2")).model, Flow(), embedded_guidance=4.0)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "text_encoder_2", "scheduler"])
def test_a_part_that_is_lacking_is_named(part: str, folders, tmp_path: Path):
    folder = Path(shutil.copytree(folders("flux"), tmp_path / "own"))
    shutil.rmtree(folder / part)
    with pytest.raises(FileNotFoundError, match=rf"own has no {part}/.*config\.json") as caught:
        build(folder)
        pipeline_vae(str(folder))
        pipeline_encoder(str(folder))
    assert "\n" not in str(caught.value)


def test_shards_are_read_and_a_download_that_was_cut_off_is_refused(folders, tmp_path: Path):
    folder = Path(shutil.copytree(folders("sd3"), tmp_path / "own"))
    whole = load(folder)
    weights_of(folder, None).unlink()
    whole.model.save_pretrained(folder / "transformer", max_shard_size="60KB")
    cut = load(folder)
    for ours, theirs in zip(cut.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    lost = sorted((folder / "transformer").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=lost.name):
        load(folder)


def test_classes_are_no_text(folders):
    with pytest.raises(ValueError, match="DiTTransformer2DModel, and reads no text; type teacher="):
        pipeline_encoder(str(folders("dit")))


def test_a_transformer_and_a_u_net_are_told_apart_with_both_names(folders, tmp_path: Path):
    unet = save_pipeline(tmp_path / "sdxl", "sdxl")
    pair = r"is a {}, and here it is a {}; choose"
    kinds = ("SD3Transformer2DModel", "UNet2DConditionModel")
    for ours, theirs, said in ((unet, folders("sd3"), kinds), (folders("sd3"), unet, kinds[::-1])):
        with pytest.raises(ValueError, match=pair.format(*said)):
            check_agrees(theirs, build(ours))


def test_a_file_s_shift_is_compared_at_the_images_own_size(folders):
    small = build(folders("flux"), resolution=16)
    check_agrees(folders("flux"), small, resolution=16)
    with pytest.raises(ValueError, match=r"the noise schedule of .* is another"):
        check_agrees(folders("flux"), small)
