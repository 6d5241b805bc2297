"""Denoisers: every prediction gives clean data, guidance is one pass, and a pass has two halves."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dmd2.diffusion.conditioning import ClassLabels, Unconditional
from dmd2.diffusion.denoiser import Denoiser, Prediction, guided
from dmd2.diffusion.preconditioning import EDM, UnscaledDenoiser
from dmd2.diffusion.schedules import (
    VP,
    Flow,
    Karras,
    NoiseSchedule,
    expand,
)
from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.discriminator import (
    ConvHead,
    Discriminator,
    VectorHead,
    WholeMap,
    discriminator_on,
)
from dmd2.nets.song import SongUNet
from dmd2.nets.toy import MLP, GaussianMixture

SCHEDULES = {"karras": Karras(), "vp": VP.scaled_linear(0.00085, 0.012), "flow": Flow(shift=2.0)}
UNET = {
    "img_resolution": 8,
    "in_channels": 1,
    "out_channels": 1,
    "label_dim": 10,
    "model_channels": 16,
}
UNET |= {"channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.0}


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


class Oracle(nn.Module):
    """A network of two halves that always outputs the same tensor."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def encode(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None
    ) -> list[Tensor]:
        return []

    def decode(self, state: list[Tensor]) -> Tensor:
        return self.output


def awake(network: nn.Module) -> nn.Module:
    """Move every parameter off its start, since fresh U-Nets and MLPs output zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def mlp(taps: tuple[str, ...] = ("enc.1",), label_dim: int = 0) -> Denoiser:
    return EDM(awake(MLP(2, 16, 4, label_dim)), Karras(), sigma_data=1.0, taps=taps)  # type: ignore[return-value]


def unet(
    family: type[nn.Module] = DhariwalUNet, taps: tuple[str, ...] = ("enc.4x4_block0",)
) -> Denoiser:
    return EDM(awake(family(**UNET)), Karras(), taps=taps)  # type: ignore[return-value]


NETWORKS = {
    "mlp": (mlp, (2,), Unconditional()),
    "direct": (
        lambda: UnscaledDenoiser(awake(MLP(2, 16, 4)), Flow(), "x0", taps=["enc.1"]),
        (2,),
        Unconditional(),
    ),
    "adm": (unet, (1, 8, 8), ClassLabels(10)),
    "ddpmpp": (lambda: unet(SongUNet), (1, 8, 8), ClassLabels(10)),
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[Denoiser, Tensor, Tensor, dict[str, Tensor]]:
    """A denoiser with six samples, their times and their conditions."""
    make, shape, conditioner = NETWORKS[request.param]
    return make(), torch.randn(6, *shape), torch.rand(6), conditioner(torch.arange(6))


# Predictions


# v is defined for alpha^2 + sigma^2 = 1, flow for alpha + sigma = 1.
SPOKEN = [
    ("vp", "x0"),
    ("vp", "eps"),
    ("vp", "v"),
    ("flow", "x0"),
    ("flow", "eps"),
    ("flow", "flow"),
]


@pytest.mark.parametrize(("family", "prediction"), SPOKEN)
def test_a_network_that_outputs_the_truth_gives_the_clean_data(family: str, prediction: Prediction):
    schedule = SCHEDULES[family]
    x0, noise = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    t = torch.tensor([0.002, 0.25, 0.5, 0.75, 0.999])
    alpha, sigma = (expand(c, x0) for c in schedule.alpha_sigma(t))
    truth = {"x0": x0, "eps": noise, "v": alpha * noise - sigma * x0, "flow": noise - x0}[
        prediction
    ]
    denoiser = UnscaledDenoiser(Oracle(truth), schedule, prediction)
    x_t = schedule.add_noise(x0, noise, t)
    torch.testing.assert_close(denoiser.predict(x_t, t, {}), truth)
    # The noise of x_t is divided by alpha, which is 5e-4 at the end of the flow.
    error = (denoiser(x_t, t, {}) - x0).abs() * (alpha if prediction == "eps" else 1)
    assert error.max() < 2e-6


def test_edm_s_raw_network_at_its_own_target_gives_the_clean_data():
    """The target of F is (x0 - c_skip x_t) / c_out (Karras et al. 2022, Eq. 8)."""
    x0, noise, t = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0.0, 0.3, 0.6, 1.0])
    x_t = Karras().add_noise(x0, noise, t)
    sigma = Karras().alpha_sigma(t)[1][:, None]
    variance = sigma**2 + 0.25
    target = (x0 - 0.25 / variance * x_t) * variance.sqrt() / (0.5 * sigma)
    torch.testing.assert_close(EDM(Oracle(target), Karras())(x_t, t, {}), x0, rtol=1e-5, atol=1e-5)


def test_edm_preconditioning_of_a_silent_network_is_the_wiener_filter():
    """With F = 0 the output is c_skip x_t, the best linear guess for data of variance
    sigma_data^2.
    """
    data = GaussianMixture(Karras(), torch.zeros(1, 2), torch.tensor([0.7]), torch.ones(1))
    x_t, t = torch.randn(5, 2) * 3, torch.rand(5)
    silent = EDM(Oracle(torch.zeros(5, 2)), Karras(), sigma_data=0.7)
    torch.testing.assert_close(silent(x_t, t, {}), data(x_t, t, {}), rtol=1e-5, atol=1e-6)


def test_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction must be x0, eps, v or flow, got 'epsilon'"):
        UnscaledDenoiser(MLP(), Flow(), "epsilon")  # type: ignore[arg-type]


def test_clean_data_is_float32_under_autocast(case):
    denoiser, x_t, t, cond = case
    with torch.autocast("cpu", torch.bfloat16):
        low = denoiser(x_t, t, cond)
    full = denoiser(x_t, t, cond)
    assert low.dtype == torch.float32
    assert 0 < (low - full).norm() / full.norm() < 0.05


# Guidance


def test_guidance_is_one_pass_of_both_halves_and_equals_two():
    denoiser, conditioner = mlp(label_dim=3), ClassLabels(3)
    x_t, t, cond = torch.randn(4, 2), torch.rand(4), conditioner(torch.tensor([0, 1, 2, 1]))
    null = conditioner.null(cond)
    batches: list[int] = []
    denoiser.model.inner.register_forward_hook(lambda _m, _a, output: batches.append(len(output)))
    found = guided(denoiser, x_t, t, cond, null, 2.5)
    assert batches == [8]
    conditional, unconditional = denoiser(x_t, t, cond), denoiser(x_t, t, null)
    torch.testing.assert_close(found, unconditional + 2.5 * (conditional - unconditional))
    assert not torch.allclose(conditional, unconditional)


def test_guidance_of_one_is_one_plain_pass():
    denoiser, conditioner = mlp(label_dim=3), ClassLabels(3)
    x_t, t, cond = torch.randn(4, 2), torch.rand(4), conditioner(torch.tensor([0, 1, 2, 1]))
    batches: list[int] = []
    denoiser.model.inner.register_forward_hook(lambda _m, _a, output: batches.append(len(output)))
    found = guided(denoiser, x_t, t, cond, conditioner.null(cond), 1.0)
    assert batches == [4]
    assert torch.equal(found, denoiser(x_t, t, cond))


# Passes that stop after the encoder


def test_features_are_what_the_tapped_layers_output():
    taps = ("enc.4x4_block0", "enc.8x8_block0")
    denoiser = unet(taps=taps)
    x_t, t, cond = torch.randn(2, 1, 8, 8), torch.rand(2), ClassLabels(10)(torch.tensor([1, 7]))
    seen: dict[str, Tensor] = {}
    for tap in taps:
        layer = denoiser.model.get_submodule(tap)
        layer.register_forward_hook(lambda _m, _a, output, tap=tap: seen.update({tap: output}))
    features = denoiser.features(x_t, t, cond)
    assert [f.shape for f in features] == [(2, 32, 4, 4), (2, 16, 8, 8)]
    assert all(torch.equal(f, seen[tap]) for f, tap in zip(features, taps, strict=True))


def test_taps_keep_one_hook_and_nothing_of_a_pass(case):
    denoiser, x_t, t, cond = case
    for _pass in range(2):
        denoiser(x_t, t, cond)
        denoiser.model.encode(x_t, t, cond.get("label"))  # of which nobody asked for features
    hooked = [layer for layer in denoiser.modules() if layer._forward_hooks]
    assert [len(layer._forward_hooks) for layer in hooked] == [1] * len(denoiser.taps)
    assert all(layer.caught is None for layer in hooked)


def test_an_unknown_tap_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError,
        match=r"denoiser\.taps: no layer is named 'enc\.7'; this network has .*enc\.0, enc\.1",
    ):
        mlp(taps=("enc.7",))


def test_a_tap_behind_the_encoder_is_refused():
    with pytest.raises(ValueError, match=r"the encoder ends before the layer 'dec\.0'"):
        mlp(taps=("enc.0", "dec.0")).features(torch.randn(1, 2), torch.rand(1), {})


def test_decoding_some_rows_gives_those_rows_of_the_whole_pass(case):
    denoiser, x_t, t, cond = case
    whole, B = denoiser(x_t, t, cond), len(x_t)
    torch.testing.assert_close(denoiser.decode(denoiser.encode(x_t, t, cond)), whole)
    encoding = denoiser.encode(x_t, t, cond, num_decoded=3)
    torch.testing.assert_close(denoiser.decode(encoding), whole[-3:], rtol=1e-4, atol=1e-5)
    assert [len(x) for x in encoding.features] == [B] * len(denoiser.taps)
    assert all(len(x) == 3 for x in (encoding.x_t, encoding.t, *encoding.state))


def test_decoding_twice_gives_the_same(case):
    denoiser, x_t, t, cond = case
    encoding = denoiser.encode(x_t, t, cond)
    assert torch.equal(denoiser.decode(encoding), denoiser.decode(encoding))


def test_detached_encoding_has_the_values_and_no_graph(case):
    denoiser, x_t, t, cond = case
    encoding = denoiser.encode(x_t.requires_grad_(), t, cond)
    detached = encoding.detach()
    assert any(x.requires_grad for x in encoding.state)
    assert not any(x.requires_grad for x in [detached.x_t, *detached.state, *detached.features])
    assert torch.equal(denoiser.decode(detached), denoiser.decode(encoding))


# The exact denoiser

MEANS, STDS, WEIGHTS = (
    torch.tensor([[-1.0, 0.5], [1.2, 0.3]]),
    torch.tensor([0.3, 0.6]),
    torch.tensor([0.3, 0.7]),
)


def noised_mixture(schedule: NoiseSchedule, t: float) -> MixtureSameFamily:
    """The density of x_t, in double."""
    alpha, sigma = (float(c) for c in schedule.alpha_sigma(torch.tensor([t])))
    std = ((alpha * STDS.double()) ** 2 + sigma**2).sqrt()[:, None].expand(2, 2)
    return MixtureSameFamily(
        Categorical(WEIGHTS.double()), Independent(Normal(alpha * MEANS.double(), std), 1)
    )


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("t", [0.1, 0.4, 0.7])
def test_exact_denoiser_obeys_tweedie(family: str, t: float):
    """alpha E[x0 | x_t] = x_t + sigma^2 grad log p(x_t)."""
    schedule = SCHEDULES[family]
    density = noised_mixture(schedule, t)
    x_t = density.sample((50,)).requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    alpha, sigma = (float(c) for c in schedule.alpha_sigma(torch.tensor([t])))
    x0 = GaussianMixture(schedule, MEANS, STDS, WEIGHTS)(x_t.detach(), torch.full((50,), t), {})
    expected = (x_t.detach() + sigma**2 * score) / alpha
    torch.testing.assert_close(x0.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SCHEDULES)
def test_exact_denoiser_is_the_posterior_mean(family: str):
    """Against samples of the data weighted by the likelihood of x_t."""
    schedule, num = SCHEDULES[family], 200_000
    which = torch.multinomial(WEIGHTS, num, replacement=True)
    x0 = MEANS[which] + STDS[which, None] * torch.randn(num, 2)
    t = torch.tensor([0.5])
    x_t = torch.tensor([[0.4, -0.7]])
    alpha, sigma = schedule.alpha_sigma(t)
    weight = (-0.5 * ((x_t - alpha * x0) / sigma) ** 2).sum(1).softmax(0)
    found = GaussianMixture(schedule, MEANS, STDS, WEIGHTS)(x_t, t, {})
    assert (found - (weight[:, None] * x0).sum(0)).abs().max() < 0.01


# The discriminator and its heads


@pytest.mark.parametrize(
    ("channels", "size", "num_parameters"),
    [(768, 8, 18_879_745), (1280, 8, 52_437_761), (1280, 32, 104_874_241)],
    ids=["imagenet", "sd15", "sdxl"],
)
def test_head_has_as_many_parameters_as_the_authors(channels: int, size: int, num_parameters: int):
    with torch.device("meta"):
        head = ConvHead(torch.Size([1, channels, size, size]))
        logits = head(torch.zeros(3, channels, size, size))
    assert sum(p.numel() for p in head.parameters()) == num_parameters
    assert logits.shape == (3, 1)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 12, 16])
def test_conv_head_gives_one_logit_for_any_size(size: int):
    shape = torch.Size([2, 32, size, size])
    assert ConvHead(shape)(torch.randn(shape)).shape == (2, 1)


@pytest.mark.parametrize("width", [None, 16])
@pytest.mark.parametrize("sides", [(8, 16), (3, 7), (1, 64), (5, 2), (4, 4), (33, 12)], ids=str)
def test_conv_head_gives_one_logit_for_any_sides(sides: tuple[int, int], width: int | None):
    shape = torch.Size([2, 32, *sides])
    head = ConvHead(shape, num_groups=8, width=width)
    features = torch.randn(shape, requires_grad=True)
    logits = head(features)
    assert logits.shape == (2, 1)
    logits.sum().backward()
    # Every place of the map counts, but for what odd sides leave over: one row or column a halving.
    seen = (features.grad.abs().sum((0, 1)) > 0).float()
    assert seen.mean() > 0.5 and seen[0, 0] == 1


@pytest.mark.parametrize("sides", [(8, 8), (8, 12), (13, 19), (4, 32), (2, 40), (33, 5)], ids=str)
def test_conv_head_takes_a_map_of_any_sides(sides: tuple[int, int]):
    torch.manual_seed(0)
    head = ConvHead(torch.Size([1, 32, 16, 16]), num_groups=8)
    features = torch.randn(2, 32, *sides, requires_grad=True)
    logits = head(features)
    assert logits.shape == (2, 1)
    logits.sum().backward()
    assert (features.grad.abs().sum((0, 1)) > 0).float().mean() > 0.5


def test_a_whole_map_is_a_convolution_and_reads_means_of_another():
    torch.manual_seed(0)
    layer, plain = WholeMap(3, 5, (4, 4)), nn.Conv2d(3, 5, (4, 4))
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(layer(x), plain(x))
    # Each place four by two times: the means are the places again.
    larger = x.repeat_interleave(4, 2).repeat_interleave(2, 3)
    assert (layer(larger) - plain(x)).abs().max() < 1e-6
    assert layer(torch.randn(1, 3, 3, 6)).shape == (1, 5, 1, 1)


@pytest.mark.parametrize(
    ("channels", "size", "num_halvings", "num_parameters"),
    [(3072, 64, 4, 6_034_177), (1536, 64, 4, 5_640_961), (2240, 32, 3, 4_771_841)],
    ids=["flux", "sd3", "sana"],
)
def test_a_width_bounds_the_head_of_a_transformer_s_tokens(
    channels: int, size: int, num_halvings: int, num_parameters: int
):
    with torch.device("meta"):
        head = ConvHead(torch.Size([1, channels, size, size]), width=256)
    found = sum(p.numel() for p in head.parameters())
    assert found == num_parameters
    W = 256
    assert found == (channels + 4) * W + (num_halvings + 1) * (16 * W**2 + 3 * W) + 1


def test_without_a_width_the_head_is_what_it_was():
    names = [name for name, _ in ConvHead(torch.Size([1, 32, 8, 8])).named_parameters()]
    kernels = [
        tuple(layer.weight.shape[2:])
        for layer in ConvHead(torch.Size([1, 32, 8, 8])).layers
        if isinstance(layer, nn.Conv2d)
    ]
    assert kernels == [(4, 4), (4, 4), (1, 1)] and names[0] == "layers.0.weight"


def test_discriminator_on_several_levels_takes_its_widths_from_a_dry_run():
    denoiser = unet(taps=("enc.8x8_block0", "enc.4x4_block0"))
    conditioner = ClassLabels(10)
    discriminator = discriminator_on(
        denoiser,
        lambda shape: ConvHead(shape, num_groups=8),
        (1, 8, 8),
        conditioner(torch.tensor([0])),
    )
    assert [level.layers[0].in_channels for level in discriminator.heads] == [16, 32]
    features = denoiser.features(
        torch.randn(3, 1, 8, 8), torch.rand(3), conditioner(torch.arange(3))
    )
    logits = discriminator(features)
    assert logits.shape == (3, 2)
    torch.testing.assert_close(logits[:, 1:], discriminator.heads[1](features[1]))


def test_discriminator_on_vectors():
    discriminator = discriminator_on(mlp(), VectorHead, (2,), {})
    assert discriminator([torch.randn(5, 16)]).shape == (5, 1)


def test_discriminator_needs_taps():
    with pytest.raises(ValueError, match="a discriminator needs features"):
        discriminator_on(mlp(taps=()), VectorHead, (2,), {})


def test_discriminator_stays_in_float32_under_autocast():
    discriminator, features = (
        Discriminator([VectorHead(torch.Size([1, 16]))]),
        [torch.randn(4, 16).bfloat16()],
    )
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(features)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, discriminator(features))


def test_logits_are_finite_at_both_ends_of_the_noise():
    denoiser = unet()
    discriminator = discriminator_on(
        denoiser, lambda s: ConvHead(s, 8), (1, 8, 8), ClassLabels(10)(torch.tensor([0]))
    )
    critic, t = Critic(denoiser, discriminator), torch.tensor([0.0, 1.0])
    x_t = denoiser.schedule.add_noise(torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8), t)
    features = critic.denoiser.features(x_t, t, ClassLabels(10)(torch.tensor([3, 4])))
    assert critic.discriminator is not None and critic.discriminator(features).isfinite().all()


def test_a_critic_with_a_step_embedding_starts_as_it_was_and_learns_each_step_by_itself():
    denoiser = EDM(awake(MLP(2, 16, 2)), Karras())
    x, t = torch.randn(64, 2), torch.full((64,), 0.5)
    before = denoiser(x, t, {})
    critic = Critic(
        denoiser, None, step_embedding=step_embedding_on(denoiser, "embed", 3, (2,), {})
    )

    def x0(step):
        return denoiser.decode(critic.encode(x, t, {}, torch.full((64,), step)))

    assert torch.equal(x0(0), before) and torch.equal(x0(2), before)
    x0(1).square().mean().backward()
    assert critic.step_embedding is not None
    moved = critic.step_embedding.vectors.grad.abs().sum(1)
    assert moved[1] > 0 and moved[0] == moved[2] == 0
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(200):  # two steps with samples of their own: one point each
        optimizer.zero_grad()
        sum(
            (x0(step) - target).square().mean() for step, target in ((0, 1.0), (1, -1.0))
        ).backward()
        optimizer.step()
    assert (x0(0).mean() - 1).abs() < 0.2 and (x0(1).mean() + 1).abs() < 0.2


def test_a_layer_that_does_not_embed_the_time_takes_no_step_embedding():
    cond = ClassLabels(10)(torch.tensor([0]))
    for layer in ("enc.8x8_conv", "enc"):
        with pytest.raises(
            ValueError, match=f"critic_step_layer={layer} must run in a pass and give"
        ):
            step_embedding_on(unet(), layer, 4, (1, 8, 8), cond)
    assert step_embedding_on(unet(), "map_layer0", 4, (1, 8, 8), cond).vectors.shape == (4, 64)
