"""What a turn does with the networks: who gets gradients, who runs how often, what the views
hold.
"""

import copy
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import ClassLabels
from dmd2.diffusion.denoiser import Denoiser, guided
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.schedules import Karras
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import UniformRows
from dmd2.losses import functional as F, weighting
from dmd2.losses.distances import SquaredError
from dmd2.losses.levels import by_level
from dmd2.losses.term import Term
from dmd2.losses.terms import (
    Denoising,
    DistributionMatching,
    GANCritic,
    GANGenerator,
    Regression,
)
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic
from dmd2.nets.discriminator import VectorHead, discriminator_on
from dmd2.nets.toy import MLP
from dmd2.randomness import Draws
from passes import Passes

ROWS = UniformRows(0.02, 0.98)
EDM_WEIGHT = partial(weighting.edm, sigma_data=1.0)
SHARED_GENERATOR = {"dm": DistributionMatching(view="v"), "gan": GANGenerator(0.1, view="v")}
SHARED_CRITIC = {"denoising": Denoising(EDM_WEIGHT, view="v"), "gan": GANCritic(0.3, view="v")}


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


def awake() -> EDM:
    """A tiny denoiser that is nobody's copy."""
    denoiser = EDM(MLP(2, 16, 4, label_dim=3), Karras(), sigma_data=1.0, taps=["enc.1"])
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return denoiser


def networks(discriminator_features: str = "critic") -> Models:
    teacher, fake, conditioner = awake().requires_grad_(False).eval(), awake(), ClassLabels(3)
    discriminator = discriminator_on(teacher, VectorHead, (2,), conditioner(torch.tensor([0])))
    return Models(teacher, Critic(fake, discriminator, discriminator_features), conditioner)  # type: ignore[arg-type]


@pytest.fixture(params=["critic", "teacher"])
def models(request: pytest.FixtureRequest) -> Models:
    """Once with the discriminator on the critic's features, once on the teacher's."""
    return networks(request.param)


@pytest.fixture
def generator() -> Denoiser:
    return awake()


def generate(generator: Denoiser, models: Models, num: int = 6) -> tuple[Tensor, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    cond = models.conditioner(torch.arange(num) % 3)
    return generator(80 * torch.randn(num, 2, generator=draw), torch.ones(num), cond), cond


def generator_turn(
    models: Models,
    generator: Denoiser,
    terms: Mapping[str, Term] = SHARED_GENERATOR,
    iteration: int = 0,
    num: int = 6,
) -> GeneratorTurn:
    x, cond = generate(generator, models, num)
    return GeneratorTurn(
        models=models,
        draws=Draws(0, iteration),
        times={str(t.view): ROWS for t in terms.values()},
        gan_views=gan_views(terms),
        decoded=decoded(terms),
        x=x.detach(),
        cond=cond,
        steps=Steps.single(num),
        generated=x,
        pair_image=None,
    )


def critic_turn(
    models: Models,
    generator: Denoiser,
    terms: Mapping[str, Term] = SHARED_CRITIC,
    iteration: int = 0,
    num: int = 6,
    num_real: int = 4,
) -> CriticTurn:
    x, cond = generate(generator, models, num)
    real = torch.randn(num_real, 2, generator=torch.Generator().manual_seed(2)) + 1
    return CriticTurn(
        models=models,
        draws=Draws(0, iteration),
        times={str(t.view): ROWS for t in terms.values()},
        gan_views=gan_views(terms),
        decoded=decoded(terms),
        x=x.detach(),
        cond=cond,
        steps=Steps.single(num),
        real=real,
        real_cond=models.conditioner((torch.arange(num_real) + 1) % 3),
    )


def gan_views(terms: Mapping[str, Term]) -> frozenset[str]:
    return frozenset(str(term.view) for term in terms.values() if "discriminator" in term.needs)


def decoded(terms: Mapping[str, Term]) -> frozenset[tuple[str, str]]:
    return frozenset((who, str(term.view)) for term in terms.values() for who in term.decodes)


def gradient(network: nn.Module) -> Tensor:
    """The gradient of all parameters, flattened; zero where there is none."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return torch.cat([g.flatten() for g in grads])


def all_have_one(network: nn.Module) -> bool:
    return all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def none_has_one(network: nn.Module) -> bool:
    return all(p.grad is None for p in network.parameters())


# Gradients


def test_generator_turn_leaves_gradients_on_the_generator_alone(models, generator):
    generator_turn(models, generator).backward(SHARED_GENERATOR, 1.0)
    assert all_have_one(generator)
    assert none_has_one(models.critic) and none_has_one(models.teacher)


def test_critic_turn_leaves_gradients_on_the_critic_alone(models, generator):
    critic_turn(models, generator).backward(SHARED_CRITIC, 1.0)
    assert all_have_one(models.critic)
    assert none_has_one(generator) and none_has_one(models.teacher)


def test_gan_gradient_reaches_the_generator_through_the_network_that_the_discriminator_reads(
    models, generator
):
    """Against the chain written out by hand."""
    gan = {"gan": GANGenerator(0.7, view="v")}
    turn = generator_turn(models, generator, gan)
    turn.backward(gan, 1.0)
    found = gradient(generator)
    generator.zero_grad()
    reader = (
        models.teacher
        if models.critic.discriminator_features == "teacher"
        else models.critic.denoiser
    )
    x, cond = generate(generator, models)
    noise, t = Draws(0, 0).normal("GeneratorTurn/v/fake/noise", (6, 2)), turn.view("v").t
    features = reader.features(models.teacher.schedule.add_noise(x, noise, t), t, cond)
    (0.7 * F.gan_generator(models.critic.discriminator(features)).mean()).backward()
    torch.testing.assert_close(found, gradient(generator), rtol=1e-4, atol=1e-8)
    assert found.norm() > 0


def test_gan_trains_the_encoder_that_the_discriminator_reads_and_not_the_teacher(models, generator):
    gan = {"gan": GANCritic(1.0, view="v")}
    critic_turn(models, generator, gan).backward(gan, 1.0)
    assert all_have_one(models.critic.discriminator)
    encoder = models.critic.denoiser.model.enc
    assert (
        all_have_one(encoder)
        if models.critic.discriminator_features == "critic"
        else none_has_one(encoder)
    )
    assert none_has_one(models.critic.denoiser.model.dec)


@pytest.mark.parametrize("guidance", [2.0, Guidance(2.0, high=0.6, patch=1)], ids=str)
def test_generator_s_gradient_is_dmd_s(models, generator, guidance):
    """g / numel at the samples, with g of DMD Eq. 7 and 8 written out."""
    dm = {"dm": DistributionMatching(view="v", guidance=guidance)}
    turn = generator_turn(models, generator, dm)
    turn.generated.retain_grad()
    turn.backward(dm, 1.0)
    view, x = turn.view("v"), turn.generated.detach()
    with torch.no_grad():
        null = models.conditioner.null(turn.cond)
        real = guided(models.teacher, view.x_t, view.t, turn.cond, null, guidance)
        fake = models.critic.denoiser(view.x_t, view.t, turn.cond)
    expected = (fake - real) / (x - real).abs().mean(1, keepdim=True) / x.numel()
    torch.testing.assert_close(turn.generated.grad, expected, rtol=1e-4, atol=1e-8)


def test_scale_scales_the_gradient_and_nothing_that_is_logged(models, generator):
    whole = generator_turn(models, generator).backward(SHARED_GENERATOR, 1.0)
    found = gradient(generator)
    generator.zero_grad()
    half = generator_turn(models, generator).backward(SHARED_GENERATOR, 0.5)
    torch.testing.assert_close(gradient(generator), 0.5 * found)
    assert {k: v.item() for k, v in half.items() if v == v} == {
        k: v.item() for k, v in whole.items() if v == v
    }

    critic_turn(models, generator).backward(SHARED_CRITIC, 1.0)
    found = gradient(models.critic)
    models.critic.zero_grad()
    critic_turn(models, generator).backward(SHARED_CRITIC, 0.5)
    torch.testing.assert_close(gradient(models.critic), 0.5 * found)


def test_a_teacher_without_finite_output_gives_no_gradient_and_is_counted(generator):
    models = networks()
    models.teacher.model.outer.bias.fill_(float("nan"))
    dm = {"dm": DistributionMatching(view="v")}
    logs = generator_turn(models, generator, dm).backward(dm, 1.0)
    assert logs["num_scrubbed"] == 6
    assert gradient(generator).abs().max() == 0


# Views


@pytest.mark.parametrize("network", ["generator", "critic"])
def test_shared_and_independent_views_have_the_same_expected_gradient(network: str, generator):
    models, num_iterations, num = networks(), 60, 8192

    def terms_on(first: str, second: str) -> dict[str, Term]:
        """Weights that make both terms' gradients of a size."""
        if network == "generator":
            return {
                "dm": DistributionMatching(view=first, floor=0.3),
                "gan": GANGenerator(3.0, view=second),
            }
        return {"denoising": Denoising(EDM_WEIGHT, view=first), "gan": GANCritic(1.0, view=second)}

    make = generator_turn if network == "generator" else partial(critic_turn, num_real=num)
    updated = generator if network == "generator" else models.critic
    means = []
    for terms in (terms_on("v", "v"), terms_on("a", "b")):
        updated.zero_grad()
        for iteration in range(num_iterations):
            make(models, generator, terms, iteration, num).backward(terms, 1 / num_iterations)
        means.append(gradient(updated))
    assert torch.cosine_similarity(*means, dim=0) > 0.99
    assert float(means[0].norm() / means[1].norm()) == pytest.approx(1, abs=0.1)
    # Both terms matter, so that the comparison says something about either.
    for name, term in terms_on("v", "v").items():
        updated.zero_grad()
        make(models, generator, {name: term}, 0, num).backward({name: term}, 1.0)
        assert torch.cosine_similarity(gradient(updated), means[0], dim=0) < 0.95


def test_a_view_is_drawn_once_and_views_of_two_names_differ(generator):
    models = networks()
    terms = {"dm": DistributionMatching(view="a"), "gan": GANGenerator(0.1, view="b")}
    turn = generator_turn(models, generator, terms)
    assert turn.view("a") is turn.view("a")
    assert (turn.view("a").t != turn.view("b").t).any()
    assert (turn.view("a").x_t != turn.view("b").x_t).all()


def test_turns_draw_independently_of_each_other_and_by_iteration(generator):
    models = networks()
    times = [
        generator_turn(models, generator).view("v").t,
        generator_turn(models, generator, iteration=1).view("v").t,
        critic_turn(models, generator).view("v").t[-6:],
    ]
    assert all((a != b).any() for i, a in enumerate(times) for b in times[:i])
    assert torch.equal(times[0], generator_turn(models, generator).view("v").t)


def test_real_rows_come_first_with_their_own_labels(models, generator):
    turn = critic_turn(models, generator)
    view = turn.view("v")
    assert torch.equal(view.x0, torch.cat([turn.real, turn.x]))
    assert torch.equal(view.cond["label"].argmax(1), torch.tensor([1, 2, 0, 1, 0, 1, 2, 0, 1, 2]))
    assert torch.equal(turn.fake("v").x0, turn.x)
    loss, _ = SHARED_CRITIC["gan"](turn)
    logits = turn.logits("v")
    torch.testing.assert_close(loss, F.gan_critic(logits[:4], logits[4:]))


def test_denoising_loss_is_of_the_generated_samples_alone(models, generator):
    turn = critic_turn(models, generator)
    loss, _ = SHARED_CRITIC["denoising"](turn)
    view = turn.view("v")
    x_t, t = view.x_t[4:], view.t[4:]
    weight = EDM_WEIGHT(*models.teacher.schedule.alpha_sigma(t))
    expected = F.denoising(models.critic.denoiser(x_t, t, turn.cond), turn.x, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_views_that_no_gan_term_reads_have_no_real_rows(generator):
    models = networks()
    terms = {"denoising": Denoising(EDM_WEIGHT, view="a"), "gan": GANCritic(0.3, view="b")}
    turn = critic_turn(models, generator, terms)
    assert torch.equal(turn.view("a").x0, turn.x) and len(turn.view("b").x0) == 10


# Passes


def test_generator_turn_runs_each_network_once_and_records_what_the_discriminator_reads(
    models, generator
):
    teacher, critic = Passes(models.teacher), Passes(models.critic.denoiser)
    generator_turn(models, generator).backward(SHARED_GENERATOR, 1.0)
    reads_teacher = models.critic.discriminator_features == "teacher"
    assert teacher.encoder == [(6, reads_teacher)] and teacher.decoder == [(6, False)]
    assert critic.encoder == [(6, not reads_teacher)] and critic.decoder == [(6, False)]


def test_guided_teacher_runs_once_with_both_halves(generator):
    models = networks()
    terms = {"dm": DistributionMatching(view="v", guidance=3.0), "gan": GANGenerator(0.1, view="v")}
    teacher = Passes(models.teacher)
    generator_turn(models, generator, terms).backward(terms, 1.0)
    assert teacher.encoder == teacher.decoder == [(12, False)]


def test_distribution_matching_alone_records_no_graph(models, generator):
    dm = {"dm": DistributionMatching(view="v")}
    teacher, critic = Passes(models.teacher), Passes(models.critic.denoiser)
    generator_turn(models, generator, dm).backward(dm, 1.0)
    assert teacher.encoder == teacher.decoder == critic.encoder == critic.decoder == [(6, False)]


def test_critic_turn_encodes_all_once_and_decodes_the_fakes(generator):
    models = networks()
    teacher, critic = Passes(models.teacher), Passes(models.critic.denoiser)
    critic_turn(models, generator).backward(SHARED_CRITIC, 1.0)
    assert critic.encoder == [(10, True)] and critic.decoder == [(6, True)]
    assert teacher.encoder == teacher.decoder == []


def test_critic_turn_with_the_discriminator_on_the_teacher_decodes_nothing_of_the_teacher(
    generator,
):
    models = networks("teacher")
    teacher = Passes(models.teacher)
    critic_turn(models, generator).backward(SHARED_CRITIC, 1.0)
    assert teacher.encoder == [(10, False)] and teacher.decoder == []


def test_a_view_that_only_the_discriminator_reads_goes_to_no_decoder(models, generator):
    gan = {"gan": GANGenerator(0.1, view="v")}
    who = models.critic.discriminator_features
    alone, both = (generator_turn(models, generator, terms) for terms in (gan, SHARED_GENERATOR))
    assert torch.equal(alone.logits("v"), both.logits("v"))
    assert len(alone.encoding(who, "v").x_t) == 0 and len(both.encoding(who, "v").x_t) == 6
    with pytest.raises(ValueError, match="make two loss terms of one"):
        alone.critic_x0("v")


# Pairs


def test_pairs_ride_along_and_only_regression_sees_them(generator):
    models = networks()
    x, cond = generate(generator, models, 10)
    target = torch.randn(4, 2)
    terms = {"dm": DistributionMatching(view="v"), "regression": Regression(0.25, SquaredError())}
    gradients = {}
    for name in ("dm", "regression"):
        turn = GeneratorTurn(
            models=models,
            draws=Draws(0, 0),
            times={"v": ROWS},
            gan_views=frozenset(),
            decoded=decoded(terms),
            x=x[:6].detach(),
            cond={"label": cond["label"][:6]},
            steps=Steps.single(6),
            generated=x,
            pair_image=target,
        )
        x.retain_grad()
        x.grad = None
        turn.backward({name: terms[name]}, 1.0)
        gradients[name] = x.grad.clone()
        x, _ = generate(generator, models, 10)
    assert gradients["dm"][6:].abs().max() == 0 and gradients["dm"][:6].abs().min() > 0
    assert gradients["regression"][:6].abs().max() == 0
    expected = 0.25 * 2 * (x[6:].detach() - target) / target.numel()
    torch.testing.assert_close(gradients["regression"][6:], expected)


# Logs


def test_logs_say_what_each_term_does_at_the_samples(models, generator):
    logs = generator_turn(models, generator).backward(SHARED_GENERATOR, 1.0)
    ratio = logs["sample_gradient_gan"] / logs["sample_gradient_dm"]
    torch.testing.assert_close(logs["gan_to_dm"], ratio)
    assert {"loss_dm", "loss_gan", "num_scrubbed", "sample_mean", "sample_std"} <= set(logs)
    assert not any(value.requires_grad for value in logs.values())
    x, _ = generate(generator, models)
    torch.testing.assert_close(logs["sample_std"], x.std().detach())


def test_a_ratio_to_a_gradient_of_zero_is_nan(models, generator):
    terms = {"dm": DistributionMatching(view="v", weight=0.0), "gan": GANGenerator(0.1, view="v")}
    assert generator_turn(models, generator).backward(terms, 1.0)["gan_to_dm"].isnan()


def test_means_by_noise_level():
    found = by_level(torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([0.0, 0.2, 0.75, 1.0]))
    assert list(found) == ["t0.00", "t0.25", "t0.50", "t0.75"]
    values = torch.stack(list(found.values()))
    torch.testing.assert_close(
        values, torch.tensor([2.0, torch.nan, torch.nan, 6.0]), equal_nan=True
    )


def test_a_turn_can_be_repeated(models, generator):
    """Everything random comes from the draws: an identical turn gives identical gradients."""
    other, twin = copy.deepcopy(models.critic), copy.deepcopy(generator)
    critic_turn(models, generator).backward(SHARED_CRITIC, 1.0)
    torch.randn(3)
    again = Models(models.teacher, other, models.conditioner)
    critic_turn(again, twin).backward(SHARED_CRITIC, 1.0)
    assert torch.equal(gradient(models.critic), gradient(other))
