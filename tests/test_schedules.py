"""Noise schedules against the closed forms, the papers' tables and a recorded reference."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dmd2.diffusion.schedules import VP, Flow, Karras, NoiseSchedule
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import LogitNormal, LogNormalSigma, UniformRows
from dmd2.randomness import Draws

FAMILIES = {
    "karras": Karras(),
    "vp": VP.scaled_linear(0.00085, 0.012),
    "flow": Flow(),
    "flow_shifted": Flow(shift=3.0),
}


@pytest.fixture(params=FAMILIES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return FAMILIES[request.param]


def row_times(schedule: NoiseSchedule, *rows: int) -> torch.Tensor:
    return schedule.time_of_row(torch.tensor(rows)).float()


# Every family


def test_noise_is_added_with_alpha_and_sigma_per_sample(schedule):
    x0, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    alpha, sigma = schedule.alpha_sigma(t)
    expected = torch.stack([alpha[i] * x0[i] + sigma[i] * noise[i] for i in range(3)])
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), expected)
    assert alpha.dtype == sigma.dtype == torch.float32


def test_time_and_ratio_are_inverse(schedule):
    t = row_times(schedule, *range(0, 999, 7))
    alpha, sigma = schedule.alpha_sigma(t)
    torch.testing.assert_close(schedule.time_of_ratio(sigma / alpha), t, rtol=1e-5, atol=1e-6)


def test_rows_and_times_are_inverse(schedule):
    rows = torch.arange(1000)
    times = schedule.time_of_row(rows).float()
    assert torch.equal(schedule.row_of_time(times), rows)
    assert times[-1] == 1 and (times.diff() > 0).all() and times[0] >= 0


def test_noise_grows_with_time(schedule):
    alpha, sigma = schedule.alpha_sigma(row_times(schedule, *range(1000)))
    assert (sigma.diff() > 0).all() and (alpha.diff() <= 0).all()


def test_prior_has_the_noise_of_time_one(schedule):
    _, sigma = schedule.alpha_sigma(torch.ones(1))
    assert float(sigma) == pytest.approx(
        schedule.prior_std, rel=3e-3
    )  # SD's last row keeps 0.5 % signal


# Karras


def test_karras_landmarks():
    landmarks = {0: 0.002, 20: 0.00323, 100: 0.0168, 200: 0.0853, 300: 0.319, 339: 0.503, 400: 0.97}
    landmarks |= {500: 2.53, 600: 5.87, 700: 12.4, 800: 24.5, 900: 45.6, 980: 72.05, 999: 80.0}
    alpha, sigma = Karras().alpha_sigma(row_times(Karras(), *landmarks))
    assert (alpha == 1).all()
    assert sigma.tolist() == pytest.approx(list(landmarks.values()), rel=5e-3)


def test_karras_table_is_the_reference_s(reference: Path):
    recorded = torch.from_numpy(np.load(reference / "dmd2/losses.npz")["karras_sigmas"])
    _, sigma = Karras().alpha_sigma(row_times(Karras(), *range(1000)))
    torch.testing.assert_close(sigma, recorded, rtol=2e-6, atol=0)


def test_karras_refuses_levels_out_of_order():
    for low, high in [(0.0, 80.0), (80.0, 80.0), (-1.0, 1.0)]:
        with pytest.raises(ValueError, match="sigma_min must lie between 0 and sigma_max"):
            Karras(low, high)


# VP


def test_stable_diffusion_s_table():
    """Row, alpha-bar, its root, root of one minus it, gain 1 / alpha, and sigma / alpha."""
    table = [
        (999, 0.004660, 0.0683, 0.9977, 14.65, 14.61),
        (749, 0.056623, 0.2380, 0.9713, 4.20, 4.08),
        (499, 0.277670, 0.5269, 0.8499, 1.90, 1.61),
        (399, 0.426086, 0.6528, 0.7576, 1.53, 1.16),
        (249, 0.675432, 0.8219, 0.5697, 1.22, 0.69),
    ]
    schedule = FAMILIES["vp"]
    for row, alpha2, root, sigma_expected, gain, ratio in table:
        alpha, sigma = (float(x) for x in schedule.alpha_sigma(row_times(schedule, row)))
        assert alpha**2 == pytest.approx(alpha2, rel=1e-4)
        assert (alpha, sigma) == pytest.approx((root, sigma_expected), abs=6e-5)
        assert (1 / alpha, sigma / alpha) == pytest.approx((gain, ratio), abs=6e-3)
    alpha, _ = schedule.alpha_sigma(row_times(schedule, 20, 980))
    assert (alpha**2).tolist() == pytest.approx([0.9813, 0.00584], rel=1e-3)


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_published_times_are_the_published_rows(name):
    """ceil(t * 1000) - 1 would give row 400 for t = 0.4 in float32."""
    rows = FAMILIES[name].row_of_time(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.4]))
    assert rows.tolist() == [999, 749, 499, 249, 399]


def test_vp_preserves_variance():
    alpha, sigma = FAMILIES["vp"].alpha_sigma(torch.rand(100))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(100))


def test_vp_finds_the_row_nearest_to_a_ratio():
    schedule = FAMILIES["vp"]
    alpha, sigma = schedule.alpha_sigma(row_times(schedule, 300, 301))
    low, high = (sigma / alpha).tolist()
    between = torch.tensor([0.6 * low + 0.4 * high, 0.4 * low + 0.6 * high, 0.0, 1e6])
    assert schedule.row_of_time(schedule.time_of_ratio(between)).tolist() == [300, 301, 0, 999]


@pytest.mark.parametrize(
    "table", [[], [0.5, 0.6], [1.0, 0.5], [0.5, 0.0], [[0.5, 0.4]], [0.5, 0.5], [0.5, math.nan]]
)
def test_vp_refuses_tables_that_are_none(table):
    with pytest.raises(ValueError, match="one falling row of numbers between 0 and 1"):
        VP(table)


# Flow


def test_flow_shift():
    t = torch.linspace(0, 1, 11)
    alpha, sigma = Flow(shift=3.0).alpha_sigma(t)
    torch.testing.assert_close(sigma, 3 * t / (1 + 2 * t))
    torch.testing.assert_close(alpha + sigma, torch.ones(11))
    assert torch.equal(Flow().alpha_sigma(t)[1], t)
    # SD3's shift multiplies sigma / alpha (Esser et al. 2024, Eq. 23).
    plain = Flow().alpha_sigma(t[1:-1])
    torch.testing.assert_close(sigma[1:-1] / alpha[1:-1], 3 * plain[1] / plain[0])


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.3736983888784478, 2.9395295505211205, 3.0])
def test_flow_holds_no_data_at_time_one(shift):
    """Exactly none: samplers divide by alpha, and 1 - sigma leaves a rounding error for the odd
    shift.
    """
    alpha, sigma = Flow(shift).alpha_sigma(torch.tensor([0.0, 1.0]))
    assert alpha.tolist() == [1, 0]
    assert sigma.tolist() == pytest.approx([0, 1], abs=1e-6)


# Time samplers


def rows_drawn(sampler: UniformRows, schedule: NoiseSchedule, num: int = 60_000) -> torch.Tensor:
    t = sampler(schedule, Draws(0, 0), "t", Steps.single(num))
    assert t.dtype == torch.float32
    return torch.bincount(schedule.row_of_time(t), minlength=schedule.num_rows)


@pytest.mark.parametrize(
    ("low", "high", "first", "last"), [(0.02, 0.98, 20, 980), (0.0, 1.0, 0, 999)]
)
def test_uniform_rows_hits_both_ends_and_nothing_beyond(schedule, low, high, first, last):
    counts = rows_drawn(UniformRows(low, high), schedule)
    assert (counts[first : last + 1] > 0).all()
    assert counts[:first].sum() == counts[last + 1 :].sum() == 0
    mean = 60_000 / (last + 1 - first)
    assert (counts[first : last + 1] - mean).abs().max() < 6 * mean**0.5


def test_uniform_rows_of_one_row():
    assert rows_drawn(UniformRows(0.4, 0.4), FAMILIES["vp"], 10).nonzero().tolist() == [[400]]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.6, 0.5), (0.0, 1.1)])
def test_uniform_rows_refuses_what_is_no_interval(low, high):
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        UniformRows(low, high)


@pytest.mark.parametrize("name", ["karras", "vp", "flow_shifted"])
def test_log_normal_sigma_has_its_moments(name):
    schedule = FAMILIES[name]
    t = LogNormalSigma(-0.5, 0.7)(schedule, Draws(0, 0), "t", Steps.single(50_000))
    alpha, sigma = schedule.alpha_sigma(t)
    log_ratio = (sigma / alpha).log()
    assert float(log_ratio.mean()) == pytest.approx(-0.5, abs=0.015)
    assert float(log_ratio.std()) == pytest.approx(0.7, abs=0.015)


def test_log_normal_sigma_stays_in_range(schedule):
    t = LogNormalSigma(0.0, 20.0)(schedule, Draws(0, 0), "t", Steps.single(1000))
    assert t.isfinite().all() and t.min() >= 0 and t.max() <= 1


def test_logit_normal_has_its_moments():
    logits = LogitNormal(0.3, 0.8)(Flow(), Draws(0, 0), "t", Steps.single(50_000)).logit()
    assert float(logits.mean()) == pytest.approx(0.3, abs=0.015)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(
    "sampler", [UniformRows(), LogNormalSigma(), LogitNormal()], ids=lambda s: type(s).__name__
)
def test_times_are_functions_of_the_draws_and_the_stream(sampler):
    def times(iteration: int, stream: str) -> list[float]:
        return sampler(FAMILIES["karras"], Draws(0, iteration), stream, Steps.single(8)).tolist()

    assert times(1, "a") == times(1, "a")
    assert times(1, "a") != times(2, "a") and times(1, "a") != times(1, "b")
