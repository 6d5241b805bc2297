"""What the files of a pipeline of diffusers say is used, refused by name, or compared."""

import inspect
import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmd2.diffusion.schedules import VP, Flow
from dmd2.io.hub import weights_of
from dmd2.io.tensors import names_in, read_tensors, weights_sha256
from dmd2.losses.weighting import eps, flow, of_pipeline, x0
from dmd2.nets.autoencoder_kinds import vae_of
from dmd2.nets.pipeline import check_agrees, from_configs, pipeline_encoder, pipeline_vae
from dmd2.nets.pipeline_noise import FLOWS, TABLES, noise_of
from dmd2.nets.unet import UNet, UNetXL
from pipelines import save_pipeline

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[text]'")
BETAS = {"beta_start": 0.001, "beta_end": 0.02}
TRAINED = {"trained_betas": torch.linspace(0.001, 0.03, 1000).tolist()}


def described(folder: Path, name: str, **said) -> Path:
    """A folder with the scheduler's file alone."""
    getattr(diffusers, name)(**said).save_pretrained(folder / "scheduler")
    return folder


def edit(path: Path, **changes) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("betas", [BETAS, TRAINED], ids=["ends", "trained"])
def test_each_scheduler_s_betas_are_its_table(name: str, betas, tmp_path: Path):
    schedule, prediction = noise_of(described(tmp_path, name, **betas))
    table = getattr(diffusers, name)(**betas).alphas_cumprod.double()
    assert isinstance(schedule, VP) and prediction == "eps"
    torch.testing.assert_close(schedule.alphas_cumprod, table, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_table_rescaled_to_zero_signal_is_used_for_v_and_refused_for_eps(
    name: str, tmp_path: Path
):
    said = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    schedule, prediction = noise_of(described(tmp_path / "v", name, **BETAS, **said))
    alpha, sigma = schedule.alpha_sigma(torch.ones(1))
    assert prediction == "v" and 0 < alpha < 1e-3 and sigma == 1
    plain, _ = noise_of(described(tmp_path / "plain", name, **BETAS))
    assert plain.alpha_sigma(torch.ones(1))[0] > 10 * alpha
    with pytest.raises(ValueError, match="rescale_betas_zero_snr and predicts epsilon"):
        noise_of(described(tmp_path / "eps", name, **said | {"prediction_type": "epsilon"}))


@pytest.mark.parametrize(
    "name, said",
    [
        *((name, {"shift": 3.0}) for name in FLOWS),
        *(
            (
                name,
                {"flow_shift": 3.0, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
            )
            for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
        ),
    ],
    ids=str,
)
def test_a_flow_s_shift_is_used_and_its_network_is_told_the_noise_level(
    name: str, said, tmp_path: Path
):
    schedule, prediction = noise_of(described(tmp_path, name, **said))
    assert isinstance(schedule, Flow) and (schedule.shift, prediction) == (3.0, "flow")
    t = torch.tensor([1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(
        schedule.network_time(t), torch.tensor([1000.0, 900.0, 750.0, 500.0])
    )


@pytest.mark.parametrize(
    "file, changes, words",
    [
        ("scheduler/scheduler_config.json", {"_class_name": "SCMScheduler"}, "'SCMScheduler', of"),
        ("scheduler/scheduler_config.json", {"_class_name": None}, "is None, of which nothing"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDMEuler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "noise"}, "predicts noise"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "go together"),
        ("scheduler/scheduler_config.json", {"shift": 3.0}, "shift=3.0, which DDIMSch.* not read"),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "cubic"},
            "scheduler of .* cannot be built",
        ),
        (
            "scheduler/scheduler_config.json",
            {"trained_betas": "x"},
            "scheduler of .* has trained_betas='x'",
        ),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "is a UNet2DModel"),
        ("unet/config.json", {"in_channels": 9}, "reads 9 channels and makes 4"),
        ("unet/config.json", {"in_channels": 8}, "reads 8 channels and makes 4: it is one for inp"),
        ("unet/config.json", {"out_channels": 8}, "reads 4 channels and makes 8.* a variance"),
        ("unet/config.json", {"_name_or_path": "x/sd-turbo"}, "few steps already .*x/sd-turbo"),
        ("unet/config.json", {"num_class_embeds": 10}, "num_class_embeds=10"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type=timestep"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ("unet/config.json", {"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type"),
        ("unet/config.json", {"addition_embed_type": "image"}, "addition_embed_type=image"),
        ("unet/config.json", {"attention_type": "gated"}, "attention_type=gated"),
    ],
    ids=str,
)
def test_what_no_denoiser_here_is_is_refused_by_its_name(
    file: str, changes, words: str, tmp_path: Path
):
    edit(save_pipeline(tmp_path) / file, **changes)
    with pytest.raises(ValueError, match=words):
        from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)


SAMPLING = {
    *("algorithm_type", "base_image_seq_len", "base_shift", "clip_sample", "clip_sample_range"),
    *("corrector_order", "disable_corrector", "dynamic_thresholding_ratio", "euler_at_final"),
    *("final_sigmas_type", "interpolation_type", "lambda_min_clipped", "lower_order_final"),
    *("max_image_seq_len", "max_shift", "predict_x0", "predictor_order", "sample_max_value"),
    *("set_alpha_to_one", "shift_terminal", "sigma_max", "sigma_min", "skip_prk_steps"),
    *("solver_order", "solver_p", "solver_type", "steps_offset", "stochastic_sampling"),
    *("tau_func", "thresholding", "time_shift_type", "timestep_spacing", "upscale_mode"),
    *("use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas"),
}
"""Keys that say how a scheduler walks through its noise, and not what the noise is."""
OTHERS = {
    "beta_schedule": ["squaredcos_cap_v2", "cubic"],
    "trained_betas": [[0.01] * 1000, "x"],
    "prediction_type": ["v_prediction", "sample", "flow_prediction", "noise", None, 3],
    "timestep_type": ["continuous"],
    "variance_type": ["learned", "learned_range"],
    "scale_factors": [[0.5, 1.0]],
}
"""Values that are none of the defaults."""


def noise_in(folder: Path) -> tuple | str:
    """What is read from a scheduler's file, as numbers; or the refusal."""
    try:
        schedule, prediction = noise_of(folder)
    except ValueError as error:
        return str(error)
    t = torch.linspace(0, 1, 9)
    levels = torch.stack([*schedule.alpha_sigma(t), schedule.network_time(t)])
    return prediction, *levels.flatten().tolist()


@pytest.mark.parametrize("name", [*FLOWS, *TABLES])
def test_each_key_of_a_scheduler_is_used_refused_or_of_sampling_alone(name: str, tmp_path: Path):
    """Each key that changes, changes what is read or is refused by name, unless it is known to be
    of sampling alone: no new key of diffusers is passed over.
    """
    file = described(tmp_path, name) / "scheduler/scheduler_config.json"
    plain, before = file.read_text(), noise_in(tmp_path)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for key, parameter in inspect.signature(getattr(diffusers, name)).parameters.items():
        if key in SAMPLING:
            continue
        default = parameter.default
        numbers = [not default] if isinstance(default, bool) else [default * 2] if default else []
        values = OTHERS.get(key, numbers if not isinstance(default, str) else [])
        assert values, f"{name} has a key {key} that this test does not know"
        for value in values:
            edit(file, **(flow if key == "flow_shift" else {}), **{key: value})
            after = noise_in(tmp_path)
            # A refusal may be of what the key makes of others.
            assert after != before, f"{key}={value} changes nothing"
            if isinstance(after, str) and key in (*OTHERS, "invert_sigmas"):
                assert key in after or str(value) in after or "cannot be built" in after, after
            file.write_text(plain)


NO_NUMBERS = ["x", True, None, [1.0], math.nan, math.inf, -1]
DYNAMIC = {"use_dynamic_shifting": True}


@pytest.mark.parametrize(
    ("name", "key", "wrong", "said"),
    [
        (FLOWS[0], "shift", [0, *NO_NUMBERS], {}),
        (FLOWS[0], "num_train_timesteps", [0, 2.5, 10**12, *NO_NUMBERS], {}),
        (FLOWS[0], "max_shift", NO_NUMBERS[:-1], DYNAMIC),
        (FLOWS[0], "base_image_seq_len", [0, 4096, *NO_NUMBERS], DYNAMIC),
        (FLOWS[0], "use_dynamic_shifting", ["false", 1], {}),
        (FLOWS[0], "time_shift_type", ["Linear", "cubic", None, 1], DYNAMIC),
        (TABLES[1], "num_train_timesteps", [0, 2.5, 10**12, *NO_NUMBERS], {}),
        (TABLES[1], "beta_end", [1.0, *NO_NUMBERS], {}),
        (TABLES[1], "beta_schedule", [None, 1], {}),
        (TABLES[1], "trained_betas", [[], ["x"], [0.1, math.nan], 0.1], {}),
    ],
)
def test_a_scheduler_s_value_of_no_sense_is_named(name, key, wrong, said, tmp_path: Path):
    file = described(tmp_path, name, **said) / "scheduler/scheduler_config.json"
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    noise_of(tmp_path, num_tokens=256)
    for value in wrong:
        edit(file, **{key: value})
        with pytest.raises(ValueError, match=key) as caught:
            noise_of(tmp_path, num_tokens=256)
        assert "linspace" not in str(caught.value)


@pytest.mark.parametrize("value", ["x", True, 0, -1, math.nan, math.inf])
@pytest.mark.parametrize("key", ["scaling_factor", "latent_channels", "block_out_channels"])
def test_a_vae_s_value_of_no_sense_is_named(key: str, value, tmp_path: Path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text(
        json.dumps({"_class_name": "AutoencoderKL", key: value})
    )
    with pytest.raises(ValueError, match=f"the VAE of {tmp_path} has {key}="):
        vae_of(str(tmp_path), 64)


@pytest.mark.parametrize("name", [FLOWS[0], TABLES[0], TABLES[3]])
@pytest.mark.parametrize("key, value", [("snr_shift_scale", 3.0), ("beta_strat", 0.1), ("x", "y")])
def test_a_key_that_no_scheduler_has_is_refused(name: str, key: str, value, tmp_path: Path):
    edit(described(tmp_path, name) / "scheduler/scheduler_config.json", **{key: value})
    with pytest.raises(ValueError, match=f"says {key}={value}, which nothing here knows"):
        noise_of(tmp_path)


def test_keys_of_other_schedulers_and_of_diffusers_are_no_matter(tmp_path: Path):
    """As in Stable Diffusion 1.5, whose file for PNDM has keys of DDIM."""
    others = {"clip_sample": True, "skip_prk_steps": True, "_diffusers_version": "0.6.0"}
    folder = described(tmp_path, "DPMSolverMultistepScheduler")
    before = noise_in(folder)
    edit(folder / "scheduler/scheduler_config.json", **others)
    assert noise_in(folder) == before


@pytest.mark.parametrize("text", ["[]", "12", "null", "{", "[" * 10_000])
@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "unet/config.json"])
def test_a_damaged_file_of_a_pipeline_is_named(file: str, text: str, tmp_path: Path):
    (save_pipeline(tmp_path) / file).write_text(text)
    with pytest.raises(ValueError, match=rf"{file} is damaged"):
        from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_file_that_is_lacking_is_named(file: str, tmp_path: Path):
    (save_pipeline(tmp_path) / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {file}"):
        from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)


def test_a_transformer_that_nothing_knows_is_named(tmp_path: Path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text('{"_class_name": "Kandinsky"}')
    with pytest.raises(ValueError, match=r"is a Kandinsky, and known are SD3Transformer2DModel"):
        from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)


@pytest.mark.parametrize("name, kind", [("sd15", UNet), ("sdxl", UNetXL)])
def test_what_is_built_from_the_files_agrees_with_them_and_reads_their_text(
    name: str, kind, tmp_path: Path
):
    save_pipeline(tmp_path, name)
    found = from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    assert type(found) is kind
    check_agrees(tmp_path, found)
    encoder = pipeline_encoder(str(tmp_path))
    assert encoder.twin == ("zeros" if name == "sdxl" else "empty")
    cond = encoder(encoder.tokens(["a red dot"]))
    if name == "sdxl":
        assert cond["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]]
    vae = pipeline_vae(str(tmp_path))
    assert found(torch.zeros(1, *vae.shape), torch.ones(1), cond).shape == (1, *vae.shape)


def test_scale_and_shape_of_the_vae_are_those_of_its_file(tmp_path: Path):
    save_pipeline(tmp_path, "sdxl")
    vae = pipeline_vae(str(tmp_path))
    assert (vae.shape, vae.resolution, vae.scaling_factor) == ((4, 8, 8), 16, 0.13025)
    assert pipeline_vae(str(tmp_path), resolution=32).shape == (4, 16, 16)
    edit(tmp_path / "unet/config.json", sample_size=None)
    with pytest.raises(ValueError, match=r"sample_size=None.*teacher\.autoencoder\.resolution"):
        pipeline_vae(str(tmp_path))


@pytest.mark.parametrize(
    "file, changes, words",
    [
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "is T5EncoderModel"),
        ("text_encoder/config.json", {"architectures": None}, "is of no named class"),
        ("unet/config.json", {"cross_attention_dim": 20}, "width 20, and its encoders make 16"),
        ("text_encoder/config.json", {"use_attention_mask": True}, "says use_attention_mask"),
    ],
    ids=str,
)
def test_encoders_that_do_not_fit_are_named(file: str, changes, words: str, tmp_path: Path):
    edit(save_pipeline(tmp_path) / file, **changes)
    with pytest.raises(ValueError, match=words):
        pipeline_encoder(str(tmp_path))


def test_keys_of_a_newer_diffusers_are_refused_where_they_say_something(tmp_path: Path):
    save_pipeline(tmp_path)
    denoiser = from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    for name in ("unet", "vae"):
        # The last two as published files have them: Qwen-Image's, and those of averaged weights.
        published = {"pooled_projection_dim": 768, "decay": 0.9999}
        edit(tmp_path / name / "config.json", _new="x", rotated=False, bent=None, **published)
    from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    assert pipeline_vae(str(tmp_path)).network
    for name in ("unet", "vae"):
        edit(tmp_path / name / "config.json", rotated="twice")
    words = r"rotated='twice', which the installed diffusers does not know"
    with pytest.raises(ValueError, match=words):
        from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    with pytest.raises(ValueError, match=words):
        check_agrees(tmp_path, denoiser)
    with pytest.raises(ValueError, match=words):
        pipeline_vae(str(tmp_path)).network  # noqa: B018 - it is read now


def test_what_no_caption_is_must_be_a_switch(tmp_path: Path):
    edit(save_pipeline(tmp_path, "sdxl") / "model_index.json", force_zeros_for_empty_prompt="false")
    with pytest.raises(ValueError, match=r"force_zeros_for_empty_prompt='false', expected true or"):
        pipeline_encoder(str(tmp_path))


def test_sdxl_s_refiner_is_told_apart(tmp_path: Path):
    save_pipeline(tmp_path, "sdxl")
    edit(tmp_path / "unet/config.json", projection_class_embeddings_input_dim=26)
    with pytest.raises(ValueError, match="refiner"):
        pipeline_encoder(str(tmp_path))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"latents_mean": [0.0] * 4}, "latents_mean"),
        ({"latents_std": [1.0] * 4}, "latents_std"),
        ({"_class_name": "AsymmetricAutoencoderKL"}, "AsymmetricAutoencoderKL"),
    ],
    ids=str,
)
def test_a_vae_with_a_scale_of_another_kind_is_refused(changes, words: str, tmp_path: Path):
    edit(save_pipeline(tmp_path) / "vae/config.json", **changes)
    with pytest.raises(ValueError, match=words):
        pipeline_vae(str(tmp_path)).identity()


def test_a_vae_of_more_than_colours_is_refused(tmp_path: Path):
    """As of depth beside the colours (LDM3D)."""
    save_pipeline(tmp_path)
    diffusers.AutoencoderKL(in_channels=6, out_channels=6).save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match="in_channels=6, and images here have 3 channels"):
        pipeline_vae(str(tmp_path), 16).identity()


def test_a_vae_that_overflows_is_not_held_in_float16(tmp_path: Path):
    save_pipeline(tmp_path)
    with pytest.raises(ValueError, match="force_upcast"):
        pipeline_vae(str(tmp_path), dtype="float16").identity()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"scheduler": {"beta_end": 0.02}}, "noise schedule of .* is another"),
        ({"scheduler": {"rescale_betas_zero_snr": True}}, "rescale_betas_zero_snr and predicts"),
        ({"unet": {"norm_eps": 1e-6}}, "norm_eps=1e-06, and this configuration norm_eps=1e-05"),
        ({"unet": {"attention_head_dim": [4, 8]}}, r"attention_head_dim=\[4, 8\]"),
        ({"unet": {"flip_sin_to_cos": False}}, "flip_sin_to_cos=False"),
        ({"unet": {"mid_block_scale_factor": 2}}, "mid_block_scale_factor=2"),
    ],
    ids=str,
)
def test_files_that_say_something_else_than_the_denoiser_are_refused_with_both_values(
    changes, words: str, tmp_path: Path
):
    save_pipeline(tmp_path)
    ours = from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    for part, keys in changes.items():
        name = "scheduler/scheduler_config.json" if part == "scheduler" else "unet/config.json"
        edit(tmp_path / name, **keys)
    with pytest.raises(ValueError, match=words):
        check_agrees(tmp_path, ours)


def test_what_means_the_same_agrees(tmp_path: Path):
    save_pipeline(tmp_path)
    ours = from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    same = {"attention_head_dim": [4, 4], "upcast_attention": True, "only_cross_attention": None}
    edit(tmp_path / "unet/config.json", **same, sample_size=64)
    check_agrees(tmp_path, ours)


@pytest.mark.parametrize(
    "prediction, ours", [("epsilon", eps), ("v_prediction", flow), ("sample", x0)]
)
def test_the_critic_s_weight_is_the_error_of_what_is_predicted(prediction, ours, tmp_path: Path):
    said = {"prediction_type": prediction}
    assert of_pipeline(str(described(tmp_path, "DDIMScheduler", **said))) is ours


def test_shards_are_read_as_one_file(tmp_path: Path):
    whole, cut = save_pipeline(tmp_path / "a"), save_pipeline(tmp_path / "b", shard="60KB")
    index = weights_of(cut, None)
    assert index.suffix == ".json" and len(list((cut / "unet").glob("*.safetensors"))) > 2
    one = read_tensors(weights_of(whole, None))
    several = read_tensors(index)
    assert sorted(names_in(index)) == sorted(one) == sorted(several)
    assert all(torch.equal(one[name], several[name]) for name in one)
    before = weights_sha256(index)
    first = sorted((cut / "unet").glob("*.safetensors"))[0]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    assert weights_sha256(index) != before
    first.unlink()
    with pytest.raises(FileNotFoundError, match=first.name):
        weights_of(cut, None)


@pytest.mark.parametrize("place", ["../vae/x.safetensors", "/etc/passwd", "", 3, None])
def test_an_index_that_names_files_elsewhere_is_refused(place, tmp_path: Path):
    cut = save_pipeline(tmp_path, shard="60KB")
    index = cut / "unet/diffusion_pytorch_model.safetensors.index.json"
    edit(index, weight_map={"conv_in.weight": place})
    with pytest.raises(ValueError, match="no plain one"):
        weights_of(cut, None)


PARTS = {
    "text_encoder": "text_encoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


def alter(path: Path, how: str) -> str:
    """Rename, drop, or enlarge one weight of a file; returns its name."""
    weights = load_file(path)
    name = next(name for name, weight in weights.items() if weight.ndim > 1)
    weight = weights.pop(name)
    if how != "lacking":
        new = weight if how == "renamed" else weight.new_zeros([n + 1 for n in weight.shape])
        weights[name + "_old" * (how == "renamed")] = new
    save_file(weights, path, {"format": "pt"})
    return name


@pytest.mark.parametrize("how", ["lacking", "renamed", "larger"])
@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_not_the_config_s_are_named_and_never_drawn(
    part: str, how: str, tmp_path: Path
):
    """Both libraries would fill the gap with random numbers."""
    name = alter(save_pipeline(tmp_path) / PARTS[part], how)
    with pytest.raises(ValueError, match=rf"the {part} of .*{re.escape(name.split('.', 1)[1])}"):
        pipeline_encoder(str(tmp_path)) if part == "text_encoder" else pipeline_vae(
            str(tmp_path)
        ).identity()


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_text_encoder_of_another_depth_than_its_weights_is_refused(
    num_layers: int, tmp_path: Path
):
    edit(save_pipeline(tmp_path) / "text_encoder/config.json", num_hidden_layers=num_layers)
    with pytest.raises(ValueError, match=r"layers\.[12]\."):
        pipeline_encoder(str(tmp_path))
