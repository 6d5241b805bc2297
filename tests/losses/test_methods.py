"""Methods after DMD2, each in closed form: exact scores of Gaussians, quadrature, algebra."""

import math
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import ClassLabels, Cond, Unconditional
from dmd2.diffusion.denoiser import Denoiser, Encoding
from dmd2.diffusion.first_jump import FirstJump
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.sampling import FewStepSampler, ODEWalk
from dmd2.diffusion.schedules import VP, Flow, Karras, NoiseSchedule
from dmd2.diffusion.solvers import coefficients, ddim_walk
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import BelowStep, UniformRows, WithinSegment
from dmd2.losses import divergences, functional as F, weighting
from dmd2.losses.term import Term
from dmd2.losses.terms import (
    ApproximateR1,
    DistributionMatching,
    EmbeddingDistance,
    FDivergence,
    GANGenerator,
    GuidanceAugmentation,
    LaterStepsMatching,
    PseudoHuberMatching,
    RelativisticGANCritic,
    RelativisticGANGenerator,
    ScoreIdentity,
)
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.discriminator import Discriminator, MeanHead
from dmd2.nets.toy import MLP, GaussianMixture
from dmd2.randomness import Draws

MIDDLE = UniformRows(0.3, 0.7)
MIXTURE = torch.eye(2), torch.tensor([0.3, 0.5]), torch.tensor([0.4, 0.6])
"""Means, standard deviations and weights."""


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


def gaussian(mean: list[float], std: float) -> GaussianMixture:
    """The exact denoiser of N(mean, std^2 I): affine in x_t."""
    return GaussianMixture(Karras(), torch.tensor([mean]), torch.tensor([std]), torch.ones(1))


class Transparent(Denoiser):
    """A denoiser whose features are x_t, for heads whose logits are known functions of it."""

    prediction = "x0"

    def __init__(self, schedule: Flow | Karras, num_taps: int = 1) -> None:
        super().__init__(nn.Identity(), schedule)
        self.num_taps = num_taps

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        encoding = Encoding(x_t, t, [], []).last(num_decoded)
        encoding.features.extend([x_t] * self.num_taps)
        return encoding

    def finish(self, encoding: Encoding) -> Tensor:
        return 0.5 * encoding.x_t


def labelled(step_embedding: bool = False) -> tuple[Models, ClassLabels]:
    """Teacher and critic of three classes that nobody trained; the critic may know two steps."""
    networks = []
    for _ in range(2):
        networks.append(EDM(MLP(2, 16, 4, label_dim=3), Karras(), sigma_data=1.0))
        for parameter in networks[-1].parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    teacher, fake = networks
    conditioner = ClassLabels(3)
    steps = None
    if step_embedding:
        cond = conditioner(torch.zeros(1, dtype=torch.long))
        steps = step_embedding_on(fake, "embed", 2, (2,), cond)
        steps.vectors.data += torch.randn_like(steps.vectors)
    return Models(teacher, Critic(fake, None, step_embedding=steps), conditioner), conditioner


def generator_turn(
    models: Models, x: Tensor, cond: Cond | None = None, gan_views: tuple[str, ...] = ()
) -> GeneratorTurn:
    return GeneratorTurn(
        models=models,
        draws=Draws(0, 0),
        times={"v": MIDDLE},
        gan_views=frozenset(gan_views),
        decoded=frozenset({("teacher", "v"), ("critic", "v")}),
        x=x.detach(),
        cond=cond or {},
        steps=Steps.single(len(x)),
        generated=x,
        pair_image=None,
    )


def gradient(turn: GeneratorTurn, **terms: Term) -> Tensor:
    """The gradient at the samples."""
    turn.generated.retain_grad()
    turn.backward(terms, 1.0)
    assert turn.generated.grad is not None
    return turn.generated.grad


# f-divergences

GENERATORS = {
    "reverse_kl": lambda r: -r.log(),
    "forward_kl": lambda r: r * r.log(),
    "jensen_shannon": lambda r: r * r.log() - (1 + r) * ((1 + r) / 2).log(),
    "squared_hellinger": lambda r: 4 * (1 - r.sqrt()),
    "softened_reverse_kl": lambda r: (1 + r) * ((1 + r) / r).log(),
    "jeffreys": lambda r: (r - 1) * r.log(),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_weighted_score_difference_is_the_gradient_of_the_f_divergence(name: str):
    """p = N(0, 1), q = N(theta, 1.2^2), by quadrature; a sample moves with theta, so dx = 1."""
    x = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def density(mean: Tensor | float, std: float) -> Tensor:
        return (-0.5 * ((x - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))

    p, q = density(0.0, 1.0), density(theta, 1.2)
    divergence = torch.trapezoid(q * GENERATORS[name](p / q), x)
    (expected,) = torch.autograd.grad(divergence, theta)
    q = q.detach()
    score_p, score_q = -x, -(x - theta.detach()) / 1.2**2
    h = getattr(divergences, name)(p / q)
    found = torch.trapezoid(q * h * (score_q - score_p), x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_f_divergence_multiplies_dmd_s_gradient_by_the_clipped_ratio_s_weight():
    """The logit is x_t's first coordinate, and so r = exp(x_t[0])."""
    head = nn.Linear(2, 1, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0]])
    models = Models(
        gaussian([1.0, 0.0], 0.5), Critic(Transparent(Karras()), Discriminator([head])),
        Unconditional(),
    )  # fmt: skip
    x = torch.randn(64, 2, requires_grad=True)
    dm = gradient(generator_turn(models, 1 * x), dm=DistributionMatching(view="v"))
    turn = generator_turn(models, 1 * x, gan_views=("v",))
    weighted = FDivergence(divergences.jeffreys, (0.5, 4.0), view="v")
    found = gradient(turn, dm=weighted)
    r = turn.view("v").x_t[:, 0].detach().exp().clamp(0.5, 4.0)
    assert (r == 4).any() and (r == 0.5).any() and ((r > 0.5) & (r < 4)).any()
    torch.testing.assert_close(found, dm * ((1 + r) / (1 + r).mean())[:, None])
    plain = gradient(
        generator_turn(models, 1 * x, gan_views=("v",)),
        dm=FDivergence(divergences.reverse_kl, view="v"),
    )
    torch.testing.assert_close(plain, dm)


def test_a_logit_that_is_not_finite_costs_its_own_sample_alone():
    """The weights of the others are over their own mean."""
    models = Models(
        gaussian([1.0, 0.0], 0.5), Critic(gaussian([0.3, 0.2], 0.9), None), Unconditional()
    )
    turn = generator_turn(models, torch.randn(4, 2, requires_grad=True))
    logits = torch.tensor([0.0, torch.nan, 1.0, 2.0])
    turn.logits = lambda _: logits[:, None]
    term = FDivergence(divergences.forward_kl, view="v")
    real, fake = term.predictions(turn)
    found = term.gradient(turn, real, fake)
    dm = DistributionMatching(view="v").gradient(turn, real, fake)
    fine = logits.isfinite()
    r = logits[fine].exp()
    torch.testing.assert_close(found[fine], dm[fine] * (r / r.mean())[:, None])
    assert found[~fine].isnan().all()
    turn = generator_turn(models, torch.randn(4, 2, requires_grad=True))
    turn.logits = lambda _: logits[:, None]
    loss, logs = term(turn)
    assert loss.isfinite() and logs["num_scrubbed"] == 1


def test_f_divergence_takes_the_mean_logit_of_several_levels():
    heads = nn.ModuleList(nn.Linear(2, 1) for _ in range(2))
    models = Models(
        gaussian([1.0, 0.0], 0.5), Critic(Transparent(Karras(), 2), Discriminator([*heads])),
        Unconditional(),
    )  # fmt: skip
    x = torch.randn(16, 2, requires_grad=True)
    dm = gradient(generator_turn(models, 1 * x), dm=DistributionMatching(view="v"))
    turn = generator_turn(models, 1 * x, gan_views=("v",))
    found = gradient(turn, dm=FDivergence(divergences.forward_kl, (1e-9, 1e9), view="v"))
    with torch.no_grad():
        r = ((heads[0](turn.view("v").x_t) + heads[1](turn.view("v").x_t)) / 2).exp()
    torch.testing.assert_close(found, dm * r / r.mean())


# Score identity


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.2])
def test_score_identity_s_gradient_goes_through_both_scores(alpha: float):
    """Both are affine, f = g x_t + b, so that the derivative at x is written out."""
    models = Models(
        gaussian([1.0, -1.0], 0.6), Critic(gaussian([0.3, 0.2], 0.9), None), Unconditional()
    )
    x = torch.randn(32, 2, requires_grad=True)
    turn = generator_turn(models, 1 * x)
    found = gradient(turn, sid=ScoreIdentity(view="v", alpha=alpha))
    view = turn.view("v")
    with torch.no_grad():
        real, fake = (
            network(view.x_t, view.t, {}) for network in (models.teacher, models.critic.denoiser)
        )
        sigma = models.teacher.schedule.alpha_sigma(view.t)[1][:, None]
        g_real, g_fake = (std**2 / (std**2 + sigma**2) for std in (0.6, 0.9))
        difference, slope = real - fake, g_real - g_fake
        expected = slope * (real - x - alpha * difference)
        expected += difference * (g_real - 1 - alpha * slope)
        expected /= F.normaliser(x, real, 1e-5)
    torch.testing.assert_close(found, expected / x.numel(), rtol=1e-4, atol=1e-7)


def test_score_identity_is_of_the_guided_teacher_and_of_a_critic_that_is_told_the_step():
    models, conditioner = labelled(step_embedding=True)
    x, cond = torch.randn(6, 2, requires_grad=True), conditioner(torch.arange(6) % 3)
    turn = generator_turn(models, 1 * x, cond)
    turn.steps = steps = FewStepSampler([1.0, 0.5]).steps_at([0, 1] * 3)
    found = gradient(turn, sid=ScoreIdentity(view="v", guidance=3.0, alpha=1.2))
    t = turn.view("v").t
    alpha, sigma = (a[:, None] for a in Karras().alpha_sigma(t))
    noise = ((turn.view("v").x_t - alpha * x) / sigma).detach()
    x_t = alpha * x + sigma * noise
    own, null = (models.teacher(x_t, t, c) for c in (cond, conditioner.null(cond)))
    fake = models.critic.denoiser.decode(models.critic.encode(x_t, t, cond, steps.index))
    loss = F.score_identity(x, null + 3 * (own - null), fake, alpha=1.2, floor=1e-5)
    (expected,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("broken_one", ["teacher", "critic"])
def test_a_score_that_is_not_finite_costs_its_own_sample_alone(broken_one: str):

    class Broken(GaussianMixture):
        def finish(self, encoding: Encoding) -> Tensor:
            return torch.tensor([1.0, torch.nan, 1.0, 1.0])[:, None] * super().finish(encoding)

    ones = torch.ones(1)
    x, found = torch.randn(4, 2, requires_grad=True), []
    for kind in (GaussianMixture, Broken):
        real, fake = (
            (kind if name == broken_one else GaussianMixture)(
                Karras(), torch.tensor([mean]), std * ones, ones
            )
            for name, mean, std in (("teacher", [1.0, -1.0], 0.6), ("critic", [0.3, 0.2], 0.9))
        )
        models = Models(real, Critic(fake, None), Unconditional())
        found.append(gradient(generator_turn(models, 1 * x), sid=ScoreIdentity(view="v")))
        loss, logs = ScoreIdentity(view="v")(generator_turn(models, 1 * x))
        assert loss.isfinite() and logs["fisher"].isfinite()
        assert logs["num_scrubbed"] == (kind is Broken)
    whole, broken = found
    assert not broken[1].any() and whole.all()
    torch.testing.assert_close(broken[[0, 2, 3]], whole[[0, 2, 3]])


def test_score_identity_descends_the_fisher_divergence():
    """Equal widths: the divergence is c (mean - theta)^2, and alpha = 0 gives half its gradient."""
    mean, theta = torch.tensor([1.0, -1.0]), torch.tensor([0.3, 0.2])
    x = (theta + 0.6 * torch.randn(16, 2)).requires_grad_()
    t = torch.full((16,), 0.5)
    x_t = Karras().add_noise(x, torch.randn(16, 2), t)
    real, fake = (gaussian(m.tolist(), 0.6)(x_t, t, {}) for m in (mean, theta))
    loss = F.score_identity(x, real, fake, alpha=0.0, floor=1e6)
    (found,) = torch.autograd.grad(1e6 * loss, x)
    sigma2 = float(Karras().alpha_sigma(t)[1][0]) ** 2
    c = (sigma2 / (0.6**2 + sigma2)) ** 2
    torch.testing.assert_close(x.numel() * found, (c * (theta - mean)).expand(16, 2))


# Wrong numbers


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: FDivergence(divergences.jeffreys, clip=(20.0, 0.1)),
            "loss.generator.dm.clip=[0.1,20]",
        ),
        (
            lambda: FDivergence(divergences.jeffreys, clip=(-1.0, 2.0)),
            "loss.generator.dm.clip=[0.1,20]",
        ),
        (lambda: ScoreIdentity(alpha=-1.0), "loss.generator.sid.alpha=1.0"),
        (lambda: EmbeddingDistance(0.1, width=0), "embedding.width=32"),
        (lambda: EmbeddingDistance(0.1, scales=()), "embedding.scales=[0.25,0.5,1.0]"),
        (lambda: EmbeddingDistance(0.1, scales=(0.5, 0.0)), "embedding.scales=[0.25,0.5,1.0]"),
        (lambda: ApproximateR1(0.1, std=0.0), "loss.critic.r1.std=0.1"),
    ],
)
def test_numbers_that_switch_a_term_off_or_break_it_are_refused(make: Any, words: str):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


# Guidance of its own


def test_guidance_apart_is_guided_dmd_in_two_terms():
    """With one denominator for all, on one view."""
    models, conditioner = labelled()
    x, cond = torch.randn(6, 2, requires_grad=True), conditioner(torch.arange(6) % 3)
    whole = gradient(
        generator_turn(models, 1 * x, cond),
        dm=DistributionMatching(view="v", guidance=3.0, floor=100.0),
    )
    parts = gradient(
        generator_turn(models, 1 * x, cond),
        dm=DistributionMatching(view="v", floor=100.0),
        guidance=GuidanceAugmentation(3.0, view="v", floor=100.0),
    )
    torch.testing.assert_close(parts, whole)
    with pytest.raises(ValueError, match=r"scale 1 is none; type e\.g\. teacher\.guidance=3"):
        GuidanceAugmentation(1.0)


def test_guidance_apart_is_over_the_distance_to_the_guided_prediction():
    """(mu(c) - mu_w(c)) / mean |x - mu_w(c)|, and the critic is not asked."""
    models, conditioner = labelled()
    x, cond = torch.randn(6, 2, requires_grad=True), conditioner(torch.arange(6) % 3)
    term = GuidanceAugmentation(3.0, view="v")
    turn = generator_turn(models, 1 * x, cond)
    found = gradient(turn, guidance=term)
    view = turn.view("v")
    with torch.no_grad():
        plain, null = (models.teacher(view.x_t, view.t, c) for c in (cond, conditioner.null(cond)))
        guided = null + 3 * (plain - null)
        expected = (plain - guided) / (x - guided).abs().mean(1, keepdim=True)
    torch.testing.assert_close(found, expected / x.numel())
    assert term.decodes == {"teacher"} and term(turn)[1] == {"num_guidance_scrubbed": 0}


# Segments


def test_pseudo_huber_gives_each_sample_a_gradient_of_one_size():
    models = Models(
        gaussian([1.0, -1.0], 0.6), Critic(gaussian([0.3, 0.2], 0.6), None), Unconditional()
    )
    x = torch.randn(32, 2, requires_grad=True)
    found = gradient(generator_turn(models, 1 * x), dm=PseudoHuberMatching(view="v", c=0.0))
    away = torch.tensor([-0.7, 1.2])  # fake - real, up to a factor
    torch.testing.assert_close(found, (away / away.square().mean().sqrt()).expand(32, 2) / 64)
    # Far below c the distance is quadratic.
    small = gradient(generator_turn(models, 1 * x), dm=PseudoHuberMatching(view="v", c=1e4))
    plain = gradient(generator_turn(models, 1 * x), dm=DistributionMatching(view="v", floor=1e4))
    torch.testing.assert_close(small, plain)


def test_pseudo_huber_turns_quadratic_at_tdm_s_constant():
    """TDM's c is .00054 sqrt(D) of a sample's norm: .00054 of the root of its mean square."""
    models = Models(
        gaussian([1.0, -1.0], 0.6), Critic(gaussian([0.999, -1.0005], 0.6), None), Unconditional()
    )
    x, term = torch.randn(32, 2, requires_grad=True), PseudoHuberMatching(view="v")
    turn = generator_turn(models, 1 * x)
    found = gradient(turn, dm=term)
    difference = turn.critic_x0("v") - turn.teacher_x0("v", 1.0)
    size = difference.square().sum(1, keepdim=True).sqrt()
    assert (size < 0.00054 * math.sqrt(2)).any() and (size > 0.00054 * math.sqrt(2)).any()
    expected = difference / (size**2 + (0.00054 * math.sqrt(2)) ** 2).sqrt() * math.sqrt(2)
    torch.testing.assert_close(found, expected / x.numel())
    assert "floor_share" not in term(turn)[1]  # it has no floor


@pytest.mark.parametrize("first", [1.0, 0.8], ids=["", "first step told less than 1"])
def test_times_of_segments_and_below_the_step(first: float):
    """The first step's input is pure noise, whatever time the network is told."""
    steps = FewStepSampler([first, 0.75, 0.5, 0.25]).steps_at([0, 1, 2, 3] * 2000)
    within = WithinSegment(0.02, 0.98)(Karras(), Draws(0, 0), "t", steps)
    below = BelowStep(0.02, 0.98)(Karras(), Draws(0, 0), "t", steps)
    for i, (low, high) in enumerate([(0.75, 0.98), (0.5, 0.75), (0.25, 0.5), (0.02, 0.25)]):
        for times, least in ((within[i::4], low), (below[i::4], 0.02)):
            assert least <= times.min() < least + 0.01 and high - 0.01 < times.max() <= high
            assert float(times.mean()) == pytest.approx((least + high) / 2, abs=0.02)


def test_a_view_may_be_of_the_last_row_alone():
    schedule = Karras()
    times = UniformRows(low=1.0)(schedule, Draws(0, 0), "t", Steps.single(5))
    assert (times == schedule.time_of_row(torch.tensor(schedule.num_rows - 1))).all()


@pytest.mark.parametrize("times", [WithinSegment, BelowStep, UniformRows])
@pytest.mark.parametrize("bounds", [(0.98, 0.02), (-0.1, 1.0), (0.0, 1.1)])
def test_bounds_of_times_that_are_none_are_refused(times: Any, bounds: tuple[float, float]):
    with pytest.raises(ValueError, match="low and high must satisfy"):
        times(*bounds)


# First step


class Constant(Denoiser):
    """Makes the same of everything."""

    def __init__(self, schedule: NoiseSchedule, x0: Tensor) -> None:
        super().__init__(nn.Identity(), schedule)
        self.x0 = x0

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.x0


SCHEDULES = {"karras": Karras(), "vp": VP.scaled_linear(), "flow": Flow(shift=3.0)}


@pytest.mark.parametrize("first", [1.0, 0.8])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_student_that_makes_the_first_jump_walks_to_the_teacher_s_ode(name: str, first: float):
    """That of N(m, s^2) keeps (x_t - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    schedule, m, s = SCHEDULES[name], torch.tensor([1.0, -1.0]), 0.6
    teacher = GaussianMixture(schedule, m[None], torch.tensor([s]), torch.ones(1))
    noise = torch.randn(16, 2)
    x0 = FirstJump(250, (first, 0.5)).sample(teacher, schedule, noise, {})
    student = Constant(schedule, x0)
    landed, _ = ODEWalk([first, 0.5]).walk(student, [noise], {}, [1] * 16)
    start = schedule.prior_std * noise
    (a, b), (a_half, b_half) = coefficients(schedule, 1.0), coefficients(schedule, 0.5)
    kept = math.hypot(a_half * s, b_half) / math.hypot(a * s, b)
    exact = a_half * m + kept * (start - a * m)
    torch.testing.assert_close(landed, exact, rtol=0, atol=0.02 * float(exact.std()))


def test_first_jump_of_a_flow_is_the_mean_velocity_s():
    teacher, noise = GaussianMixture(Flow(), *MIXTURE), torch.randn(16, 2)
    z = ddim_walk(teacher, teacher.schedule, noise, {}, [1 - i / 12 for i in range(7)])
    found = FirstJump(num_steps=6).sample(teacher, teacher.schedule, noise, {})
    torch.testing.assert_close(found, noise - (noise - z.float()) / (1 - 0.5))
    for times in ((1.0,), (0.5, 0.5), (0.4, 0.5), (1.0, 0.0), (1.1, 0.5)):
        with pytest.raises(ValueError, match=re.escape(f"got {list(times)}")):
            FirstJump(times=times)


def test_distribution_matching_of_later_steps_leaves_the_first_alone():
    models = Models(
        gaussian([1.0, -1.0], 0.6), Critic(gaussian([0.3, 0.2], 0.9), None), Unconditional()
    )
    x, steps = (
        torch.randn(8, 2, requires_grad=True),
        FewStepSampler([1.0, 0.5]).steps_at([0, 1] * 4),
    )
    turns = [generator_turn(models, 1 * x) for _ in range(2)]
    for turn in turns:
        turn.steps = steps
    found = gradient(turns[0], dm=LaterStepsMatching(view="v"))
    plain = gradient(turns[1], dm=DistributionMatching(view="v"))
    assert torch.equal(found[1::2], plain[1::2]) and not found[::2].any() and plain[::2].all()


# Embedding


def test_mmd_of_two_gaussians_is_its_closed_form():
    """E k of N(0, s^2) and N(d, s^2) is h / sqrt(h^2 + 2 s^2) exp(-d^2 / (2 (h^2 + 2 s^2)))."""
    s, d, h = 0.8, 0.5, 0.7

    def mean_kernel(distance: float) -> float:
        spread = h**2 + 2 * s**2
        return h / math.sqrt(spread) * math.exp(-(distance**2) / (2 * spread))

    found = torch.stack(
        [F.gaussian_mmd2(s * torch.randn(64, 1), d + s * torch.randn(64, 1), [h])
         for _ in range(400)]
    )  # fmt: skip
    expected = 2 * mean_kernel(0.0) - 2 * mean_kernel(d)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / 20)
    assert found.std() < expected


def test_mmd_is_the_mean_over_its_kernels_and_has_a_gradient_at_equal_points():
    x, y = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    one, two = (F.gaussian_mmd2(x, y, [h]) for h in (0.5, 2.0))
    torch.testing.assert_close(F.gaussian_mmd2(x, y, [0.5, 2.0]), (one + two) / 2)
    (found,) = torch.autograd.grad(F.gaussian_mmd2(x, x.detach(), [1.0]), x)
    assert found.isfinite().all()


def beside(real: Tensor, x: Tensor, rank: int = 0) -> GeneratorTurn:
    """A turn of samples beside real ones, in the third iteration of two ranks."""
    models = Models(gaussian([0.0], 1.0), Critic(gaussian([0.0], 1.0), None), Unconditional())
    turn = generator_turn(models, x)
    turn.real, turn.draws = real, Draws(0, 3, rank, 2)
    return turn


def test_embedding_distance_moves_samples_towards_the_data_alike_on_all_ranks():
    term = EmbeddingDistance(weight=1.0, width=8)
    real, x = torch.rand(16, 1, 8, 8), torch.rand(16, 1, 8, 8) - 1.0
    before = term(beside(real, x.requires_grad_()))[0]
    assert before > 0 and torch.equal(before, term(beside(real, x, rank=1))[0])
    for _ in range(20):
        x = (x - 20 * gradient(beside(real, 1 * x), embedding=term)).detach().requires_grad_()
    assert term(beside(real, x))[0] < 0.5 * before


def test_embedding_distance_is_the_mmd_of_features_in_units_of_their_distance():
    term = EmbeddingDistance(weight=1.0, width=8)
    real, x = torch.rand(6, 1, 8, 8), torch.rand(5, 1, 8, 8, requires_grad=True)
    turn = beside(real, 1 * x)
    found = gradient(turn, embedding=term)
    f, g = term.features(x, turn), term.features(real, turn)
    unit = (f[:, None] - g).square().sum(2).mean().sqrt().item()
    expected = F.gaussian_mmd2(f / unit, g / unit, term.scales)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x)[0])
    torch.testing.assert_close(term(turn)[0], expected)
    # The network has no biases, so that features are as large as samples.
    torch.testing.assert_close(term(beside(7 * real, 7 * x))[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(term(turn)[0], expected)
    turn.draws = Draws(0, 4)
    assert not torch.equal(term(turn)[0], expected), "each iteration draws a network anew"


# GAN


def test_hinge_losses_and_their_margins():
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [0.0]])
    assert F.hinge_critic(real, fake) == (0 + 0.5) / 2 + (0 + 1) / 2
    assert F.hinge_generator(fake).mean() == 1.5


def test_gan_weight_by_noise_level_multiplies_each_sample_s_gradient():
    head, network = nn.Linear(2, 1), Transparent(Flow())
    models = Models(network, Critic(network, Discriminator([head])), Unconditional())
    x = torch.randn(16, 2, requires_grad=True)

    def found(weight: weighting.Weighting) -> Tensor:
        turn = generator_turn(models, 1 * x, gan_views=("v",))
        return gradient(turn, gan=GANGenerator(1.0, view="v", level_weight=weight))

    plain = found(weighting.constant)
    t = generator_turn(models, 1 * x).view("v").t[:, None]
    # A flow's alpha and sigma are 1 - t and t.
    torch.testing.assert_close(found(weighting.alpha2), (1 - t) ** 2 * plain)
    share = (1 - t) ** 2 / ((1 - t) ** 2 + t**2)
    torch.testing.assert_close(found(weighting.signal), share * plain)


def test_relativistic_optimum_is_the_log_ratio_up_to_a_constant():
    """Two points, of which real samples have the first in 3 of 4 cases, and fake ones in 1 of 4."""
    at_best = torch.tensor([[3.0], [1 / 3]]).log() + 5.0
    logits = at_best.clone().requires_grad_()
    loss = F.relativistic_critic(logits[[0, 0, 0, 1]], logits[[0, 1, 1, 1]])
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, torch.zeros(2, 1), rtol=0, atol=1e-6)
    # Two of equal logits: log 2 each. Of 16 pairs 6 are of equal points, 9 right and 1 wrong.
    pairs = 6 * math.log(2) + 9 * math.log(1 + 1 / 9) + math.log(1 + 9)
    assert float(loss.detach()) == pytest.approx(pairs / 16, rel=1e-5)


@pytest.mark.parametrize("features", ["critic", "teacher"])
def test_relativistic_generator_of_a_linear_discriminator(features: str):
    """-alpha w sigmoid(D(real) - D(x_t)), a mean over all real rows, which have no graph."""
    head, network = nn.Linear(2, 1), Transparent(Flow())
    critic = Critic(network, Discriminator([head]), features)  # type: ignore[arg-type]
    x = torch.randn(6, 2, requires_grad=True)
    turn = generator_turn(Models(network, critic, Unconditional()), 1 * x, gan_views=("v",))
    turn.real = torch.randn(5, 2) + 1.0
    with_graph = []
    head.register_forward_pre_hook(lambda _, rows: with_graph.append(rows[0].requires_grad))
    found = gradient(turn, gan=RelativisticGANGenerator(1.0, view="v"))
    assert sorted(with_graph) == [False, True], "the real rows' and the samples'"
    view, real = turn.view("v"), turn.real_view("v")
    assert len(real.t) == 5 and set(real.t.tolist()).isdisjoint(view.t.tolist())
    with torch.no_grad():
        slope = (head(real.x_t)[:, 0] - head(view.x_t)).sigmoid().mean(1)
        expected = -(Flow().alpha_sigma(view.t)[0] * slope)[:, None] * head.weight / 6
    torch.testing.assert_close(found, expected)


def test_relativistic_discriminator_does_not_see_a_constant():
    head, network = nn.Linear(2, 1), Transparent(Flow())
    models = Models(network, Critic(network, Discriminator([head])), Unconditional())
    term, turn = RelativisticGANCritic(1.0, view="v"), critic_turn(models, MIDDLE)
    loss, logs = term(turn)
    real, fake = turn.logits("v").split([5, 6])
    pairs = [nn.functional.softplus(b - a) for a in real for b in fake]
    torch.testing.assert_close(loss, torch.cat(pairs).mean())
    head.bias.data += 100.0
    loss_again, logs_again = term(replace(turn))
    torch.testing.assert_close(loss_again, loss, rtol=1e-4, atol=0)
    assert logs_again["accuracy_real"] == logs["accuracy_real"]
    assert logs_again["accuracy_fake"] == logs["accuracy_fake"]


def critic_turn(models: Models, times: UniformRows) -> CriticTurn:
    return CriticTurn(
        models=models,
        draws=Draws(0, 0),
        times={"v": times},
        gan_views=frozenset({"v"}),
        decoded=frozenset({("critic", "v")}),
        x=torch.randn(6, 2),
        cond={},
        steps=Steps.single(6),
        real=torch.randn(5, 2),
        real_cond={},
    )


@pytest.mark.parametrize("features", ["critic", "teacher"])
def test_approximate_r1_of_a_linear_discriminator(features: str):
    """(alpha std w . n)^2 of each real row, and nothing where x_t holds no data."""
    head, network = nn.Linear(2, 1), Transparent(Flow())
    critic = Critic(network, Discriminator([head]), features)  # type: ignore[arg-type]
    models = Models(network, critic, Unconditional())
    turn, term = critic_turn(models, MIDDLE), ApproximateR1(1.0, view="v", std=0.3)
    loss, _ = term(turn)
    alpha, _ = Flow().alpha_sigma(turn.view("v").t[:5])
    n = Draws(0, 0).normal("ApproximateR1/v", (5, 2))
    expected = (0.3 * alpha * (n @ head.weight[0])) ** 2
    torch.testing.assert_close(loss, expected.mean())
    # Of both inputs: with one of them constant it would be half as large.
    gradients = [torch.autograd.grad(a, head.weight)[0] for a in (loss, expected.mean())]
    torch.testing.assert_close(*gradients)
    assert term(critic_turn(models, UniformRows(0.999, 1.0)))[0] == 0


def test_mean_head_has_no_weights_and_is_the_mean_of_the_features():
    head, features = MeanHead(torch.Size([1, 3, 2, 2])), torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(head(features), features.mean((1, 2, 3))[:, None])
    assert not list(head.parameters())


@pytest.mark.parametrize(
    "loss",
    [F.hinge_generator, partial(F.hinge_critic, torch.ones(4, 1))],
    ids=["hinge_generator", "hinge_critic"],
)
def test_hinge_gradients_have_the_logistic_one_s_signs(loss):
    fake = torch.zeros(4, 1, requires_grad=True)
    (found,) = torch.autograd.grad(loss(fake).sum(), fake)
    assert ((found < 0) if loss is F.hinge_generator else (found > 0)).all()
