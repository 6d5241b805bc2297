"""diffusers' U-Nets as denoisers: the same numbers as diffusers' schedulers make of them, and the
published sizes.
"""

import copy
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dmd2.cli.main import main
from dmd2.config.folder import config_folder
from dmd2.diffusion.conditioning import Cond, join
from dmd2.diffusion.denoiser import guided
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.schedules import VP
from dmd2.diffusion.solvers import DDIM
from dmd2.io.tensors import load_weights
from dmd2.nets.discriminator import ConvHead
from dmd2.nets.pipeline import from_configs
from dmd2.nets.unet import DECODER, UNet, UNetXL
from dmd2.runs.build import build

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: make install EXTRAS=dev,text"
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
TIMES = {1.0: 999, 0.75: 749, 0.5: 499, 0.25: 249, 0.4: 399}
ENDS = ("up_blocks.0", "up_blocks.1", "conv_out")
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 12,
}


def scheduler(prediction: str = "eps", **changed: object):
    """Stable Diffusion's, with nothing clipped."""
    settings = {
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "prediction_type": NAMES[prediction],
    }
    return diffusers.DDIMScheduler(**BETAS, **settings, **changed)


def small(prediction: str = "eps") -> UNet:
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**SMALL)
    return (
        UNet(model, VP.scaled_linear(**BETAS), prediction, ["mid_block"])
        .requires_grad_(False)
        .eval()
    )


def inputs(B: int = 5) -> tuple[Tensor, Tensor, Cond]:
    draw = torch.Generator().manual_seed(1)
    x_t = torch.randn(B, 1, 8, 8, generator=draw)
    return x_t, torch.tensor(list(TIMES))[:B], {"text": torch.randn(B, 4, 12, generator=draw)}


def test_times_are_the_published_rows_for_the_schedule_and_for_the_network():
    denoiser, (x_t, t, cond) = small(), inputs()
    assert denoiser.schedule.row_of_time(t).tolist() == list(TIMES.values())
    seen = []
    denoiser.model.register_forward_hook(lambda _m, args, _o: seen.append(args[1]))
    denoiser(x_t, t, cond)
    assert seen[0].tolist() == list(TIMES.values())


def test_noise_is_added_as_diffusers_adds_it():
    (x0, t, _), noise = (
        inputs(),
        torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)),
    )
    schedule = VP.scaled_linear(**BETAS)
    expected = scheduler().add_noise(x0, noise, torch.tensor(list(TIMES.values())))
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), expected, rtol=1e-5, atol=1e-5)
    assert (1 / schedule.alpha_sigma(torch.tensor([0.4]))[0]).item() == pytest.approx(
        1.53, abs=0.005
    )
    assert (1 / schedule.alpha_sigma(torch.tensor([1.0]))[0]).item() == pytest.approx(
        14.65, abs=0.005
    )


def clean(prediction: str, output: Tensor, x_t: Tensor) -> Tensor:
    """x0 of diffusers' scheduler, row by row."""
    theirs = scheduler(prediction)
    theirs.set_timesteps(1000)
    rows = zip(output, TIMES.values(), x_t, strict=True)
    return torch.stack([theirs.step(o, row, x).pred_original_sample for o, row, x in rows])


@pytest.mark.parametrize("prediction", NAMES)
def test_clean_data_is_what_diffusers_makes_of_the_output(prediction: str):
    denoiser, (x_t, t, cond) = small(prediction), inputs()
    output = denoiser.model(x_t, torch.tensor(list(TIMES.values())), cond["text"]).sample
    assert torch.equal(denoiser.predict(x_t, t, cond), output)
    torch.testing.assert_close(
        denoiser(x_t, t, cond), clean(prediction, output, x_t), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("prediction", NAMES)
def test_guidance_on_clean_data_is_guidance_on_the_output(prediction: str):
    denoiser, (x_t, t, cond) = small(prediction), inputs()
    null = {"text": torch.zeros_like(cond["text"])}
    conditional, unconditional = (denoiser.predict(x_t, t, c) for c in (cond, null))
    expected = clean(prediction, unconditional + 1.75 * (conditional - unconditional), x_t)
    found = guided(denoiser, x_t, t, cond, null, 1.75)
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=2e-5
    )  # where t = 1 multiplies by 15


def test_four_steps_are_those_of_the_lcm_scheduler():
    """As DMD2's SDXL student is sampled: LCMScheduler at 999, 749, 499 and 249."""
    denoiser, (z, _, cond) = small(), inputs()
    theirs = diffusers.LCMScheduler(**BETAS, beta_schedule="scaled_linear", clip_sample=False)
    theirs.set_timesteps(timesteps=[999, 749, 499, 249])
    draw, x = torch.Generator().manual_seed(3), z
    for row in theirs.timesteps:
        output = denoiser.model(x, row, cond["text"]).sample
        x = theirs.step(output, row, x, generator=draw).prev_sample
    draw = torch.Generator().manual_seed(3)
    noise = [z, *(torch.randn(z.shape, generator=draw) for _ in range(3))]
    found = FewStepSampler([1.0, 0.75, 0.5, 0.25]).sample(denoiser, noise, cond)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


def test_one_step_at_row_399_takes_unscaled_noise():
    denoiser, (z, _, cond) = small(), inputs()
    output = denoiser.model(z, 399, cond["text"]).sample
    expected = (z - 0.573914**0.5 * output) / 0.426086**0.5
    torch.testing.assert_close(
        FewStepSampler([0.4]).sample(denoiser, [z], cond), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("prediction", NAMES)
def test_ddim_is_that_of_diffusers_with_trailing_steps(prediction: str):
    denoiser, (z, _, cond) = small(prediction), inputs()
    theirs = scheduler(prediction, timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.set_timesteps(20)
    x = z
    for row in theirs.timesteps:
        x = theirs.step(denoiser.model(x, row, cond["text"]).sample, row, x).prev_sample
    found = DDIM(20).sample(denoiser, denoiser.schedule, z, cond)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)  # theirs is float32 on the way


def test_features_are_the_middle_s_output_and_gradients_reach_both_ends():
    denoiser, (x_t, t, cond) = small().requires_grad_(True), inputs()
    caught = []
    denoiser.model.mid_block.register_forward_hook(lambda _m, _a, output: caught.append(output))
    encoding = denoiser.encode(x_t.requires_grad_(), t, cond)
    assert encoding.features[0] is caught[0] and encoding.features[0].shape == (5, 16, 4, 4)
    whole = denoiser.decode(encoding)
    torch.testing.assert_close(whole, denoiser(x_t, t, cond))
    assert not denoiser.decode(encoding.detach()).requires_grad
    (gradient,) = torch.autograd.grad(encoding.features[0].sum(), x_t, retain_graph=True)
    assert gradient.abs().sum() > 0
    whole.square().mean().backward()
    assert all(parameter.grad is not None for parameter in denoiser.parameters())


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointed_gradients_are_the_same_in_eval_mode(autocast: bool):
    found = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        model = diffusers.UNet2DConditionModel(**SMALL).eval()
        denoiser = UNet(
            model, VP.scaled_linear(**BETAS), "eps", ["mid_block"], gradient_checkpointing
        )
        passes, (x_t, t, cond) = [], inputs()
        model.down_blocks[0].resnets[0].register_forward_pre_hook(
            lambda *_, passes=passes: passes.append(0)
        )
        # As Lightning's bf16-mixed: without the cache, in which weights cast without a graph would
        # stay.
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
            with torch.no_grad():
                denoiser(x_t, t, cond)
            encoding = denoiser.encode(x_t.requires_grad_(), t, cond)
            x0 = denoiser.decode(encoding)
            (x0.square().mean() + encoding.features[0].float().square().mean()).backward()
        assert x0.dtype == torch.float32 and len(passes) == 2 + gradient_checkpointing
        assert all(
            weight.dtype == weight.grad.dtype == torch.float32 for weight in model.parameters()
        )
        found.append([x0.detach(), x_t.grad, *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_decoder_runs_for_the_rows_that_are_decoded_and_for_no_others(
    gradient_checkpointing: bool,
):
    denoiser, (x_t, t, cond) = small().requires_grad_(True), inputs()
    if gradient_checkpointing:
        denoiser.model.enable_gradient_checkpointing()
    weights, num_rows = [x_t.requires_grad_(), *denoiser.parameters()], []

    def gradients(num_decoded: int | None) -> tuple[Tensor, ...]:
        encoding = denoiser.encode(x_t, t, cond, num_decoded)
        assert len(encoding.features[0]) == 5
        losses = denoiser.decode(encoding)[-2:].square().sum(), encoding.features[0].square().sum()
        return torch.autograd.grad(sum(losses), weights)

    expected = gradients(None)
    for layer in (denoiser.model.mid_block, *denoiser.model.up_blocks, denoiser.model.conv_out):
        layer.register_forward_hook(lambda _m, _a, output: num_rows.append(len(output)))
    torch.testing.assert_close(gradients(2), expected, rtol=1e-4, atol=1e-5)
    assert num_rows == [5, 2, 2, 2]
    denoiser(x_t, t, cond)
    assert num_rows[4:] == [5, 5, 5, 5]  # no hook was left behind


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_pass_of_which_nothing_is_decoded_ends_behind_the_middle(gradient_checkpointing: bool):
    """The same features and gradients to the last bit, and no operation of the decoder."""
    denoiser, (x_t, t, cond) = small().requires_grad_(True), inputs()
    if gradient_checkpointing:
        denoiser.model.enable_gradient_checkpointing()
    encoder = [p for n, p in denoiser.model.named_parameters() if not n.startswith(DECODER)]
    found, counted = [], []
    for num_decoded in (None, 0):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            denoiser.encode(x_t, t, cond, num_decoded)
        (feature,) = denoiser.encode(x_t.requires_grad_(), t, cond, num_decoded).features
        gradients = torch.autograd.grad(feature.square().sum(), [x_t, *encoder])
        found.append([feature, *gradients])
        counted.append(counter)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    whole, stopped = (counter.get_flop_counts() for counter in counted)
    assert any("up_blocks" in name for name in whole)
    assert not any("up_blocks" in name or "conv_out" in name for name in stopped)
    by_decoder = sum(sum(whole[f"UNet2DConditionModel.{n}"].values()) for n in ENDS)
    assert by_decoder > 0
    assert counted[1].get_total_flops() == counted[0].get_total_flops() - by_decoder
    # Nothing of it is left behind, and a copy is whole.
    assert "forward" not in vars(denoiser.model)
    assert torch.equal(copy.deepcopy(denoiser)(x_t, t, cond), denoiser(x_t, t, cond))


def test_x0_of_a_pass_that_was_stopped_is_refused():
    denoiser, (x_t, t, cond) = small(), inputs()
    with pytest.raises(ValueError, match="ended before its decoder"):
        denoiser.decode(denoiser.encode(x_t, t, cond, num_decoded=0))


def test_a_tap_behind_the_middle_is_refused():
    with pytest.raises(
        ValueError, match=r"the encoder ends before the layer 'up_blocks\.0'.*mid_block"
    ):
        UNet(small().model, VP.scaled_linear(**BETAS), "eps", ["mid_block", "up_blocks.0"])


def test_sdxl_reads_pooled_text_and_sizes():
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    model = diffusers.UNet2DConditionModel(
        **SMALL, **added, projection_class_embeddings_input_dim=6 * 4 + 10
    )
    denoiser, (x_t, t, cond) = UNetXL(model.eval(), VP.scaled_linear(**BETAS), "eps"), inputs()
    cond |= {
        "pooled": torch.randn(5, 10),
        "time_ids": torch.tensor([8.0, 8, 0, 0, 8, 8]).expand(5, 6),
    }
    x0 = denoiser(x_t, t, cond)
    assert not torch.equal(x0, denoiser(x_t, t, cond | {"pooled": torch.randn(5, 10)}))
    both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), join(cond, cond))
    torch.testing.assert_close(both, torch.cat([x0, x0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "num_parameters", "size", "num_in_head"),
    [("sd15", 859_520_964, 8, 52_437_761), ("sdxl", 2_567_463_684, 32, 104_874_241)],
)
def test_published_networks_and_their_heads_have_the_published_sizes(
    name, num_parameters, size, num_in_head
):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        section = compose("train", overrides=[f"teacher={name}", "data=text_digits"]).teacher
    config = section.denoiser.model
    with torch.device("meta"), torch.no_grad():
        model = build(config)
        denoiser = get_class(section.denoiser._target_)(
            model, nn.Module(), "eps", section.denoiser.taps
        )
        x_t = torch.zeros(1, 4, config.sample_size, config.sample_size)
        cond = {
            "text": torch.zeros(1, 77, config.cross_attention_dim),
            "pooled": torch.zeros(1, 1280),
        }
        with denoiser.catch() as features:
            model(x_t, torch.zeros(1), **denoiser.arguments(cond | {"time_ids": torch.zeros(1, 6)}))
        head = build(section.head)(features[0].shape)
    assert isinstance(head, ConvHead) and features[0].shape == (1, 1280, size, size)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model, head)]
    assert sizes == [num_parameters, num_in_head]


@pytest.mark.parametrize("prediction", NAMES)
def test_a_pipeline_s_configs_say_what_its_network_speaks_and_its_weights_are_imported(
    prediction, tmp_path: Path
):
    ours = small(prediction)
    ours.model.save_pretrained(tmp_path / "unet")
    scheduler(prediction).save_pretrained(tmp_path / "scheduler")
    found = from_configs(str(tmp_path), ["mid_block"], gradient_checkpointing=False)
    assert found.prediction == prediction and found.schedule.num_rows == 1000
    sys_argv, out = sys.argv, tmp_path / "imported.safetensors"
    sys.argv = [
        "dmd2",
        "import",
        f"source={tmp_path / 'unet' / 'diffusion_pytorch_model.safetensors'}",
        f"out={out}",
    ]
    try:
        main()
    finally:
        sys.argv = sys_argv
    load_weights(found, out)
    x_t, t, cond = inputs()
    torch.testing.assert_close(found.eval()(x_t, t, cond), ours(x_t, t, cond), rtol=1e-5, atol=1e-5)
