"""Few steps: training sees what inference shows. Heun: exact solutions for Gaussians, and EDM's
algorithm.
"""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dmd2.diffusion.conditioning import ClassLabels, Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction, guided
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.sampling import FewStepSampler, NoisedReal, ODEWalk
from dmd2.diffusion.schedules import VP, Flow, Karras, NoiseSchedule
from dmd2.diffusion.solvers import DDIM, Heun
from dmd2.evaluation.samples import GeneratorSampling, SampleSet, TeacherSampling
from dmd2.nets.toy import MLP, GaussianMixture

SCHEDULES = {
    "karras": Karras(),
    "vp": VP.scaled_linear(0.00085, 0.012),
    "flow": Flow(),
    "flow_shifted": Flow(shift=3.0),
    "flow_odd_shift": Flow(shift=2.3736983888784478),
}
MEAN, STD = torch.tensor([0.5, -1.0]), 0.5
FOUR = (1.0, 0.75, 0.5, 0.25)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return SCHEDULES[request.param]


@pytest.fixture
def generator() -> Denoiser:
    torch.manual_seed(0)
    denoiser = EDM(MLP(2, 16, 4, label_dim=3), Karras(), sigma_data=1.0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return denoiser


def gaussian(schedule: NoiseSchedule) -> GaussianMixture:
    """The exact denoiser of N(MEAN, STD^2 I)."""
    return GaussianMixture(schedule, MEAN[None], torch.tensor([STD]), torch.ones(1))


def noises(num: int, B: int = 8) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(B, 2, generator=draw) for _ in range(num)]


def calls(denoiser: Denoiser) -> list[tuple[Tensor, Tensor, bool]]:
    """Inputs of every pass from now on, and whether gradients were recorded."""
    seen: list[tuple[Tensor, Tensor, bool]] = []
    denoiser.register_forward_hook(
        lambda _m, args, output: seen.append((args[0], args[1], output.requires_grad))
    )
    return seen


def at(step: int, num: int = 8) -> list[int]:
    return [step] * num


# Few steps


def test_one_step_is_a_list_of_one(generator):
    cond, (z,) = ClassLabels(3)(torch.arange(8) % 3), noises(1)
    found = FewStepSampler([1.0]).sample(generator, [z], cond)
    assert torch.equal(found, generator(80 * z, torch.ones(8), cond))
    assert FewStepSampler().times == (1.0,)


def test_edm_s_network_gets_as_much_noise_as_it_is_told_of(generator):
    """From a noise level of 2.5, as SiD does; where variances are 1, noise is too, at any row."""
    t, (z,) = float(Karras().time_of_ratio(torch.tensor([2.5]))), noises(1)
    x_t, told = FewStepSampler([t]).walk(generator, [z], {}, at(0))
    torch.testing.assert_close(x_t, 2.5 * z)
    torch.testing.assert_close(generator.schedule.alpha_sigma(told)[1], torch.full((8,), 2.5))
    assert VP.scaled_linear().start_std(0.4) == Flow(shift=3.0).start_std(0.4) == 1


@pytest.mark.parametrize(
    "times", [[], [0.5, 1.0], [1.0, 1.0], [1.5], [1.0, 0.0], [1.0, -0.5], [math.nan]]
)
def test_times_that_do_not_fall_from_one_are_refused(times):
    with pytest.raises(
        ValueError, match=r"sampler\.times must fall strictly .* got \[.*sampler\.times=\["
    ):
        FewStepSampler(times)


@pytest.mark.parametrize("step", range(4))
def test_training_input_is_what_inference_passes_bit_by_bit(generator, step):
    """On every step, with the same noises: backward simulation leaves no gap (DMD2 section 4.5)."""
    sampler, cond = FewStepSampler(FOUR), ClassLabels(3)(torch.arange(8) % 3)
    passed = calls(generator)
    sampler.sample(generator, noises(4), cond)
    assert len(passed) == 4
    x_t, t = sampler.training_input(generator, noises(4)[: step + 1], cond, at(step), None)
    assert torch.equal(x_t, passed[step][0]) and torch.equal(t, passed[step][1])
    assert t.tolist() == [FOUR[step]] * 8


def test_sampling_is_denoise_and_renoise(generator):
    """DMD2's loop written out."""
    n, cond = noises(4), ClassLabels(3)(torch.arange(8) % 3)
    x = 80 * n[0]
    for i, time in enumerate(FOUR):
        t = torch.full((8,), time)
        x0 = generator(x, t, cond)
        if i < 3:
            x = generator.schedule.add_noise(x0, n[i + 1], torch.full((8,), FOUR[i + 1]))
    assert torch.equal(FewStepSampler(FOUR).sample(generator, n, cond), x0)


def test_the_last_prediction_of_the_steps_is_the_sample(generator):
    for sampler in (FewStepSampler(FOUR), ODEWalk(FOUR)):
        sampling = GeneratorSampling(generator, ClassLabels(3), sampler)
        samples = SampleSet((2,), 3, seed=0)
        found = sampling.by_step(samples, range(6))
        assert list(found) == [f"step {i + 1}, t = {t:.3g}" for i, t in enumerate(FOUR)]
        assert torch.equal(found["step 4, t = 0.25"], samples.make(sampling, range(6))[0])
        first = GeneratorSampling(generator, ClassLabels(3), FewStepSampler())
        assert torch.equal(found["step 1, t = 1"], samples.make(first, range(6))[0])


@pytest.mark.parametrize("step", range(4))
def test_training_inputs_come_from_noise_alone(generator, step):
    """Nothing but the noises and the condition enters the walk, and real samples change nothing."""
    assert list(inspect.signature(FewStepSampler.walk).parameters) == [
        "self",
        "generator",
        "noise",
        "cond",
        "step",
    ]
    sampler, n, cond = (
        FewStepSampler(FOUR),
        noises(4)[: step + 1],
        ClassLabels(3)(torch.arange(8) % 3),
    )
    found = sampler.training_input(generator, n, cond, at(step), torch.full((8, 2), math.nan))
    torch.testing.assert_close(found, sampler.walk(generator, n, cond, at(step)), rtol=0, atol=0)
    assert not sampler.needs


@pytest.mark.parametrize("step", range(4))
def test_the_named_alternative_trains_on_noised_real_samples_and_samples_as_ever(generator, step):
    sampler, n, cond = NoisedReal(FOUR), noises(4)[: step + 1], ClassLabels(3)(torch.arange(8) % 3)
    passed, real = calls(generator), torch.rand(8, 2)
    x_t, t = sampler.training_input(generator, n, cond, at(step), real)
    assert not passed and t.tolist() == [FOUR[step]] * 8 and sampler.needs == {"real"}
    expected = generator.schedule.add_noise(real, n[step], t) if step else 80 * n[0]
    assert torch.equal(x_t, expected)
    whole = [s.sample(generator, noises(4), cond) for s in (sampler, FewStepSampler(FOUR))]
    assert torch.equal(*whole)


def test_no_graph_through_the_walk(generator):
    cond, walk = ClassLabels(3)(torch.arange(8) % 3), calls(generator)
    n = [z.requires_grad_() for z in noises(4)]
    x_t, t = FewStepSampler(FOUR).training_input(generator, n, cond, at(3), None)
    assert [recorded for *_, recorded in walk] == [False] * 3
    generator(x_t, t, cond).sum().backward()
    assert n[0].grad.abs().max() == 0 and n[3].grad.abs().min() > 0
    assert walk[3][2]


def test_only_the_last_step_of_sampling_has_a_graph(generator):
    passed = calls(generator)
    FewStepSampler(FOUR).sample(generator, noises(4), ClassLabels(3)(torch.arange(8) % 3))
    assert [recorded for *_, recorded in passed] == [False, False, False, True]


def test_renoised_samples_have_the_noised_data_s_distribution(schedule):
    """With the exact denoiser of one point, each step's input is N(alpha point, sigma^2)."""
    point = GaussianMixture(schedule, MEAN[None], torch.tensor([1e-6]), torch.ones(1))
    n = [torch.randn(20_000, 2, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    for step in range(1, 4):
        x_t, t = FewStepSampler(FOUR).training_input(
            point, n[: step + 1], {}, at(step, 20_000), None
        )
        alpha, sigma = (float(c[0]) for c in schedule.alpha_sigma(t))
        assert ((x_t.mean(0) - alpha * MEAN) / sigma).abs().max() < 0.03
        assert x_t.std(0).div(sigma).sub(1).abs().max() < 0.03


# The walk along the trajectory


class Curved(Denoiser):
    """A denoiser whose trajectories are curved; `output` is what `prediction` names."""

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction) -> None:
        super().__init__(nn.Identity(), schedule)
        self.prediction = prediction

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        return Encoding(x_t, t, [], []).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        return self.output(encoding.x_t, encoding.t)

    @staticmethod
    def output(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x_t) + 0.3 * x_t + t[:, None]


@pytest.mark.parametrize("shift", [1.0, 3.0, 2.3736983888784478])
def test_the_walk_on_a_flow_is_euler_s_of_diffusers_step_by_step(shift: float):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=list(FOUR))
    denoiser = Curved(Flow(shift), "flow")
    passed, (x, *_) = calls(denoiser), noises(1)
    found = ODEWalk(FOUR).sample(denoiser, [x], {})
    for i, time in enumerate(theirs.timesteps):
        torch.testing.assert_close(passed[i][0], x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(time.expand(8), denoiser.schedule.network_time(passed[i][1]))
        x = theirs.step(denoiser.output(x, passed[i][1]), time, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)
    assert len(passed) == 4


def test_the_walk_on_a_table_is_ddim_of_diffusers_step_by_step():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(4)
    denoiser = Curved(SCHEDULES["vp"], "eps")
    passed, (x, *_) = calls(denoiser), noises(1)
    found = ODEWalk(FOUR).sample(denoiser, [x], {})
    for i, row in enumerate(theirs.timesteps):
        torch.testing.assert_close(passed[i][0], x, rtol=1e-5, atol=1e-5)
        assert denoiser.schedule.row_of_time(passed[i][1]).tolist() == [int(row)] * 8
        x = theirs.step(denoiser.output(x, passed[i][1]), row, x, eta=0.0).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


def test_the_walk_s_last_but_one_state_is_ddim_s_of_ours(schedule):
    """With equal times both are Euler's method for the ODE; DDIM is written in float64."""
    denoiser, seen = gaussian(schedule), []
    walked = calls(denoiser)
    ODEWalk(FOUR).sample(denoiser, noises(1), {})

    def denoise(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        seen.append((x_t.float(), t))
        return gaussian(schedule)(x_t.float(), t, cond)

    DDIM(4).sample(denoise, schedule, noises(1)[0], {})
    for (ours, t, _), (theirs, their_t) in zip(walked, seen, strict=True):
        torch.testing.assert_close(t, their_t.float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_the_walk_to_one_point_ends_there_along_a_line(schedule):
    """Where x0_hat is constant, so is eps_hat: every state is alpha point + sigma eps_hat."""
    # A std of 0 is no density; at 1e-12 x0_hat is the point in float32.
    point = GaussianMixture(schedule, MEAN[None], torch.tensor([1e-12]), torch.ones(1))
    passed, (z,) = calls(point), noises(1)
    found = ODEWalk(FOUR).sample(point, [z], {})
    torch.testing.assert_close(found, MEAN.expand(8, 2), rtol=1e-5, atol=1e-5)
    alpha, sigma = (c[0] for c in schedule.alpha_sigma(torch.ones(1)))
    eps = (schedule.prior_std * z - alpha * MEAN) / sigma
    for x_t, t, _ in passed:
        expected = schedule.add_noise(MEAN.expand(8, 2), eps, t)
        torch.testing.assert_close(x_t, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("step", range(4))
def test_the_walk_trains_on_what_inference_passes_and_reads_one_noise(generator, step):
    sampler, cond = ODEWalk(FOUR), ClassLabels(3)(torch.arange(8) % 3)
    passed = calls(generator)
    sampler.sample(generator, noises(1), cond)
    others = [noises(1)[0], *(torch.full((8, 2), math.nan) for _ in range(3))]
    x_t, t = sampler.training_input(generator, others[: step + 1], cond, at(step), None)
    assert torch.equal(x_t, passed[step][0]) and torch.equal(t, passed[step][1])
    assert [recorded for *_, recorded in passed[:4]] == [False, False, False, True]
    assert not sampler.needs


def test_one_step_of_the_walk_is_one_step(generator):
    cond = ClassLabels(3)(torch.arange(8) % 3)
    both = [kind([1.0]).sample(generator, noises(1), cond) for kind in (ODEWalk, FewStepSampler)]
    assert torch.equal(*both)


# Heun


def solution(schedule: NoiseSchedule, noise: Tensor, end: float) -> Tensor:
    """The ODE's exact x at time `end`: for Gaussians x - alpha MEAN stays a multiple of the
    marginal std.
    """
    (alpha1, sigma1), (alpha, sigma) = (
        (float(c) for c in schedule.alpha_sigma(torch.tensor([t]))) for t in (1.0, end)
    )
    start = schedule.prior_std * noise.double() - alpha1 * MEAN
    return alpha * MEAN + start * math.hypot(alpha * STD, sigma) / math.hypot(alpha1 * STD, sigma1)


def exact_x0(schedule: NoiseSchedule, noise: Tensor) -> Tensor:
    """What the denoiser makes of the exact solution at the solver's last time, which is row 0."""
    end = float(schedule.time_of_row(torch.tensor(0)))
    x = solution(schedule, noise, end)
    return gaussian(schedule)(x.float(), torch.full((len(x),), end), {})


def heun_error(schedule: NoiseSchedule, num_steps: int) -> float:
    (z,) = noises(1, 64)
    found = Heun(num_steps).sample(gaussian(schedule), schedule, z, {})
    return float((found - exact_x0(schedule, z)).norm() / 64**0.5)


@pytest.mark.parametrize("name", ["karras", "flow", "flow_shifted"])
def test_heun_converges_with_order_two(name):
    errors = [
        heun_error(SCHEDULES[name], num_steps) for num_steps in (11, 21, 41)
    ]  # 10, 20 and 40 intervals
    assert 3.4 < errors[0] / errors[1] < 4.8
    assert 3.4 < errors[1] / errors[2] < 4.8


def test_heun_on_a_table_converges_until_it_visits_every_row():
    """Times between two rows are rounded to one of them; with intervals of 111, 37 and 9 rows none
    is.
    """
    errors = [heun_error(SCHEDULES["vp"], 999 // rows + 1) for rows in (111, 37, 9)]
    assert errors[0] / errors[1] > 6 and errors[1] / errors[2] > 10  # 9 and 16.9 of an order of two


@pytest.mark.parametrize("num_steps", [18, 40])
def test_heun_s_samples_have_the_data_s_distribution(schedule, num_steps):
    z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    found = Heun(num_steps).sample(gaussian(schedule), schedule, z, {})
    assert found.isfinite().all()
    # Stable Diffusion's table ends at alpha = 0.07, not 0: a start from noise alone pulls to the
    # origin.
    assert (found.mean(0) - MEAN).abs().max() < 0.04
    assert found.std(0).sub(STD).abs().max() < 0.03


@pytest.mark.parametrize("num_steps", [1, 2, 5, 18])
def test_evaluations_are_counted(schedule, num_steps):
    denoiser, solver = gaussian(schedule), Heun(num_steps)
    passed = calls(denoiser)
    solver.sample(denoiser, schedule, noises(1)[0], {})
    assert len(passed) == solver.num_evaluations(schedule)
    holds_data_at_one = not isinstance(schedule, Flow)
    assert len(passed) == (
        2 * num_steps - 1 if holds_data_at_one or num_steps == 1 else 2 * num_steps - 2
    )


def test_one_step_is_the_denoiser_at_time_one(schedule):
    denoiser, (z,) = gaussian(schedule), noises(1)
    expected = denoiser(schedule.prior_std * z, torch.ones(8), {})
    assert torch.equal(Heun(1).sample(denoiser, schedule, z, {}), expected)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        Heun(0)


def edm_algorithm_2(
    denoise: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    num_steps: int,
    churn: float,
    churn_noise: Callable[[int], Tensor],
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Karras et al. 2022, Algorithm 2, with sigma for time and the levels of Eq. 5."""
    i = torch.arange(num_steps, dtype=torch.float64)
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    t = [*((high + i / (num_steps - 1) * (low - high)) ** 7).tolist(), 0.0]
    x = latents.double() * t[0]
    for i in range(num_steps):
        gamma = min(churn / num_steps, math.sqrt(2) - 1) if s_min <= t[i] <= s_max else 0.0
        raised = t[i] + gamma * t[i]
        x = x + math.sqrt(raised**2 - t[i] ** 2) * s_noise * churn_noise(i)
        slope = (x - denoise(x, torch.tensor(raised))) / raised
        following = x + (t[i + 1] - raised) * slope
        if t[i + 1]:
            correction = (following - denoise(following, torch.tensor(t[i + 1]))) / t[i + 1]
            following = x + (t[i + 1] - raised) * (slope + correction) / 2
        x = following
    return x


@pytest.mark.parametrize(
    "settings", [{}, {"churn": 5.0}, {"churn": 40, "s_min": 0.05, "s_max": 50, "s_noise": 1.003}]
)
def test_on_karras_levels_heun_is_edm_s_algorithm(generator, settings):
    cond = ClassLabels(3)(torch.arange(8) % 3)

    @torch.no_grad()
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = generator.schedule.time_of_ratio(sigma.expand(8))
        return generator(x.float(), t, cond).double()

    draws = noises(13)
    fresh = lambda i: draws[i + 1].double()  # noqa: E731
    expected = edm_algorithm_2(
        denoise, draws[0], 12, settings.get("churn", 0.0), fresh, **without_churn(settings)
    )
    found = Heun(12, **settings).sample(generator, generator.schedule, draws[0], cond, fresh)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def without_churn(settings: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in settings.items() if key != "churn"}


@pytest.mark.parametrize("name", ["karras", "vp", "flow"])
def test_churn_keeps_the_data_s_distribution(name):
    schedule, draw = SCHEDULES[name], torch.Generator().manual_seed(0)
    fresh = lambda _: torch.randn(20_000, 2, generator=draw)  # noqa: E731
    solver = Heun(60, churn=20.0)
    plain = Heun(60).sample(gaussian(schedule), schedule, fresh(0), {})
    draw.manual_seed(0)
    found = solver.sample(gaussian(schedule), schedule, fresh(0), {}, fresh)
    assert (found - plain).norm() > 0.1 * plain.norm()
    assert (found.mean(0) - MEAN).abs().max() < 0.04
    assert found.std(0).sub(STD).abs().max() < 0.03


# SampleSet samples


def test_a_sample_depends_on_its_number_and_not_on_its_batch(generator):
    samples = SampleSet((2,), 3, seed=0)
    sampling = GeneratorSampling(generator, ClassLabels(3), FewStepSampler(FOUR))
    whole, labels = samples.make(sampling, range(12))
    parts = [x for x, _ in samples.batches(sampling, range(12), 5)]
    assert [len(x) for x in parts] == [5, 5, 2]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert labels.tolist() == [0, 1, 2] * 4
    strided = torch.cat([samples.make(sampling, range(12)[rank::2])[0] for rank in range(2)])
    torch.testing.assert_close(strided[[0, 6, 1, 7]], whole[:4])


def test_pairs_hold_the_noise_as_it_is_stored(generator):
    sampling = TeacherSampling(generator, ClassLabels(3), Heun(4), guidance=2.0)
    noise, images, labels = SampleSet((2,), 3, seed=0).pairs(sampling, range(6))
    assert torch.equal(noise, noise.half().float())
    again = sampling(lambda _: noise, labels)
    assert torch.equal(images, again)


def test_teacher_samples_are_guided(generator):
    cond = ClassLabels(3)(torch.arange(8) % 3)
    null, (z,) = ClassLabels(3).null(cond), noises(1)

    def denoise(x_t: Tensor, t: Tensor, _: Cond) -> Tensor:
        return guided(generator, x_t, t, cond, null, 3.0)

    expected = Heun(5).sample(denoise, generator.schedule, z, cond)
    sampling = TeacherSampling(generator, ClassLabels(3), Heun(5), guidance=3.0)
    assert torch.equal(sampling(lambda _: z, torch.arange(8) % 3), expected)
    assert sampling.num_evaluations == 9


def test_a_step_that_all_rows_share_is_no_copy_from_the_host(generator: Denoiser):
    """Such a copy waits for the device."""
    copied = []

    class Called(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.tensor:
                copied.append(args)
            return func(*args, **(kwargs or {}))

    sampler, cond = FewStepSampler(FOUR), ClassLabels(3)(torch.arange(8) % 3)
    with Called():
        _, t = sampler.walk(generator, noises(4), cond, [3] * 8)
        steps = sampler.steps_at([3] * 8)
    assert not copied
    assert torch.equal(t, torch.full((8,), 0.25)) and torch.equal(t, steps.t)
    assert torch.equal(steps.index, torch.tensor([3] * 8)) and not steps.next_t.any()
