"""A run says whether it is healthy: rules and probe in closed form, verdicts of real runs with an
injected fault, on the console, in the summary, in metrics.csv and from it again.
"""

import json
import sys
from functools import partial
from math import nan
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from answers import answer, inside  # noqa: F401 - a fixture
from dmd2.cli.main import main
from dmd2.diffusion import EDM, FewStepSampler, Karras, NoisedReal, ODEWalk
from dmd2.diffusion.denoiser import Denoiser
from dmd2.evaluation.health import CHECKS, Monitor, Verdict, replay
from dmd2.evaluation.health.inputs import input_gap
from dmd2.evaluation.health.monitor import TOO_SHORT, state_in_words
from dmd2.evaluation.health.null import LEVELS, null_error
from dmd2.evaluation.health.probe import (
    RealRows,
    condition_share,
    share_in_float16,
    variance_within,
)
from dmd2.evaluation.health.rules import Above, Absent, All, Below, Fell, Rose
from dmd2.losses.terms.matching import error_ratio
from dmd2.nets import Critic, adapted
from dmd2.nets.toy import MLP
from dmd2.runs.health import health_of, monitor_of
from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.callbacks.health_numbers import pace, progress, trend
from dmd2.training.record import Record
from docs_hooks import website

SMALL = [
    *("experiment=toy2d_dmd2", "data.batch_size=16", "teacher.pretrain.max_iterations=2"),
    *("max_iterations=24", "log_every=2", "health.every=4", "callbacks.evaluation.every=8"),
    *("metric.num_samples=50", "metric.teacher_steps=[1]", "callbacks.samples=null"),
    *("paths.cache=cache", "critic_updates=2", "optimizer.lr_factor.decay_from=1.0"),
]

FROZEN = [*SMALL, "optimizer.critic.lr=0.0", "checkpoint.every=12"]


def rows(*values: float) -> list[dict[str, float]]:
    return [{"a": value} for value in values]


def test_rules_say_nothing_before_there_are_enough_numbers() -> None:
    assert Above("a", 1, over=3)(rows(2, 2)) is None
    assert Above("a", 1, over=3)(rows(2, nan, 2, 2)) is True
    assert Above("a", 1, over=3)(rows(2, 0, 0)) is False, "one outlier is no verdict"
    assert Below("a", 1, over=3)(rows(9, 0, 0, 5)) is True
    assert Rose("a", over=2)(rows(0, 1, 1)) is True and Rose("a", over=2)(rows(1, 1, 1)) is False
    assert Fell("a", 0.5)(rows(0.1, 0.2)) is None and Fell("a", 0.5)(rows(0.1, 0.2, 0.3)) is False
    assert Fell("a", 0.5)(rows(1, 0.4, 0.3)) is True, "it was higher"
    assert Absent("b")(rows(1)) and Absent("a")(rows(0, 0)) and not Absent("a")(rows(1, 0))
    one, none = Above("a", 1, over=1), Above("b", 1, over=1)
    assert All((one, none))(rows(2)) is None and All((one, none))(rows(0)) is False


def test_a_verdict_begins_and_ends_and_survives_a_resume() -> None:
    healthy, ill = {"critic/update_to_weights": 1e-3}, {"critic/update_to_weights": 0.5}
    log = [healthy] * 5 + [ill] * 5 + [healthy] * 5
    whole, changes = Monitor(), list[tuple[int, str]]()
    resumed = Monitor()
    for i, row in enumerate(log):
        changes += [(i, verdict.name) for verdict in whole.add(i, row)]
        resumed.add(i, row)
        if i == 8:  # in the middle of the verdict
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = Monitor()
            resumed.load_state_dict(state)
    assert changes == [(6, "critic_lr_too_high"), (11, "critic_lr_too_high")]
    assert whole.verdicts == resumed.verdicts == [Verdict("critic_lr_too_high", 6, 11)]
    assert replay({**row, "step": i} for i, row in enumerate(log)).verdicts == whole.verdicts


def test_a_collapse_lasts_until_the_spread_is_back_however_long_that_takes() -> None:
    def spread(*values: float) -> list[dict[str, float]]:
        return [{"watch/spread": value} for value in values]

    slow = [1 - 0.01 * i for i in range(100)]
    for fall in ([0.95] * 4, slow):
        monitor = Monitor()
        log = spread(*fall, *[0.2] * 250, *[0.62] * 2)
        states = [monitor.add(i, row) and monitor.state for i, row in enumerate(log)]
        began, ended = (i for i, state in enumerate(states) if state)
        assert states[began] == "unhealthy" and states[ended] == "healthy"
        assert began < len(fall) + 2 and ended == len(log) - 1


def half_over(*rows: dict[str, float]) -> list[str]:
    """The checks that find something in a run whose second half has these rows."""
    first = [{"watch/progress": 0.4, "critic/update_to_weights": 1e-3}] * 5
    log = [*first, *({"watch/progress": 0.6} | row for row in rows)]
    found = replay({**row, "step": i} for i, row in enumerate(log))
    return [verdict.name for verdict in found.standing]


def test_a_student_that_is_collapsed_from_the_start_is_named_at_half_of_the_run() -> None:
    alike = {"watch/spread": 0.25}
    assert half_over(*[alike] * 5) == ["generator_collapsing"]
    assert half_over(*[{"watch/spread": 0.45}] * 5) == []
    early = replay({**alike, "watch/progress": 0.4, "step": i} for i in range(9))
    assert early.standing == []


@pytest.mark.parametrize(
    ("to_start", "to_teacher", "expected"),
    [
        (0.6, 2.5, ["hardly_better"]),
        (0.4, 2.5, []),  # better than the untrained one
        (0.9, 1.1, []),  # it began near the teacher
    ],
)
def test_a_student_that_learns_next_to_nothing_is_named_at_half_of_the_run(
    to_start: float, to_teacher: float, expected: list[str]
) -> None:
    row = {"watch/score_to_start": to_start, "watch/score_to_teacher": to_teacher}
    assert half_over(row) == expected
    assert replay([{**row, "watch/progress": 0.4, "step": 1}]).standing == []


def test_progress_is_asked_from_the_hundredth_update_of_the_generator_on() -> None:
    def found(iteration: int) -> dict[str, float]:
        module = SimpleNamespace(iteration=iteration, critic_head_start=10, critic_updates=5)
        return progress(module, 1000)  # type: ignore[arg-type]

    assert found(509) == {} and found(510) == {"watch/progress": 0.51}


def test_the_critic_s_error_is_not_asked_where_pairs_hold_the_generator() -> None:
    row = {"generator/critic_to_teacher_error": 3.0}
    for watched, expected in (({}, ["critic_lags"]), ({"watch/regression": 1.0}, [])):
        found = replay({**row, **watched, "step": i} for i in range(6))
        assert [verdict.name for verdict in found.verdicts] == expected


def test_before_most_checks_can_say_anything_a_run_is_too_short_to_judge() -> None:
    fine = {"critic/update_to_weights": 1e-3}
    states = [replay({**fine, "step": i} for i in range(num)).state for num in range(7)]
    assert states == [TOO_SHORT] * 5 + ["healthy"] * 2
    scored = replay([{"step": 10, "watch/score_to_best": 1.0, "watch/since_best": 0.0}])
    assert scored.answers and scored.summary() == {"state": TOO_SHORT, "verdicts": []}
    assert replay([{"step": 1, "watch/batches_per_epoch": 1.0}]).state == "unhealthy"


def test_variance_within_and_between_conditions() -> None:
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(4000) % 4
    apart = x + 3.0 * (groups % 2)[:, None]
    assert variance_within(apart, groups) == pytest.approx(1.0, abs=0.05)
    assert condition_share(x, groups) == pytest.approx(0.0, abs=0.01)
    # Half of the samples lie 3 further: a variance of 9 / 4 between.
    assert condition_share(apart, groups) == pytest.approx(2.25 / 3.25, abs=0.02)


@pytest.mark.parametrize(
    ("key", "fault", "expected"),
    [
        ("spread", lambda x: 0.5 * x, 0.5),
        ("mean_shift", lambda x: x + torch.tensor([0.0, 2.0]), 2.0),
        ("std_ratio", lambda x: x * torch.tensor([1.0, 3.0]), 3.0),
        ("near_copies", lambda x: x, 1.0),
    ],
)
def test_the_probe_sees_each_fault(key: str, fault: object, expected: float) -> None:
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    x = (x - x.mean(0)) / x.std(0)
    zeros = torch.zeros(500, dtype=torch.long)
    found = RealRows(x, zeros).compare(fault(x), zeros)  # type: ignore[operator]
    assert found[key] == pytest.approx(expected, rel=1e-4)
    fresh = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    assert RealRows(x, zeros).compare(fresh, zeros)["near_copies"] < 0.1


def test_the_best_denoiser_of_the_samples_has_no_more_error_than_any_other() -> None:
    """The samples are N(0, s^2); their posterior mean is x_t s^2 / (s^2 + sigma^2)."""
    draw = torch.Generator().manual_seed(0)
    x, t = torch.randn(20000, 2, generator=draw), torch.rand(20000, generator=draw)
    x_t = x + 2 * t[:, None] * torch.randn(20000, 2, generator=draw)

    def posterior_mean(s: float) -> Tensor:
        return x_t * s**2 / (s**2 + (2 * t[:, None]) ** 2)

    best, others = posterior_mean(1.0), [posterior_mean(s) for s in (0.5, 0.8, 2.0)]
    assert all(
        error_ratio(x, other, best, t) < 1 < error_ratio(x, best, other, t) for other in others
    )
    assert error_ratio(x, best, best, t) == 1


@pytest.mark.parametrize(
    ("start", "teacher", "share"),
    [
        (7.0, {"1": 17.0, "50": 1.7}, 0.1),  # four steps of a good teacher are good, one is not
        (67.0, {"1": 66.0, "50": 26.8}, 0.4),
        (8.0, {"50": 2.0}, 0.25),
        (5.0, {"1": 5.0, "18": 60.0}, 1.0),  # more steps of it are worse
    ],
)
def test_a_teacher_is_held_against_the_worst_in_fewer_of_its_steps(
    start: float, teacher: dict[str, float], share: float
) -> None:
    record = Record("rfd")
    record.history = [
        {"iteration": i, "scores": {"raw": {"rfd": rfd}}} for i, rfd in enumerate((4.0, 2.0, 3.0))
    ]
    told = {"watch/score_to_best": 1.5, "watch/since_best": 1.0}
    assert trend(record) == told
    record.references = {
        "start": {"untrained_student": {"rfd": start}},
        "teacher": {steps: {"rfd": rfd} for steps, rfd in teacher.items()},
    }
    assert trend(record) == told | {
        "watch/teacher_to_start": pytest.approx(share),
        "watch/score_to_start": pytest.approx(3.0 / start),
        "watch/score_to_teacher": pytest.approx(3.0 / min(s for s in teacher.values())),
    }


def test_the_critic_s_pace_is_asked_of_like_weights_once_the_optimizers_have_settled() -> None:
    def denoiser() -> EDM:
        return EDM(MLP(dim=2), Karras())

    def found(generator: Denoiser, critic: Denoiser, num_updates: int, *needs: str) -> object:
        module = SimpleNamespace(
            latest={
                "generator/score_cosine": 0.9,
                "generator/update_to_weights": 0.01,
                "critic/update_to_weights": 0.004,
            },
            objective=SimpleNamespace(needs=needs),
            generator=generator,
            critic=Critic(critic, None),
            iteration=7 + 5 * num_updates,
            critic_head_start=7,
            critic_updates=5,
        )
        return pace(module)  # type: ignore[arg-type]

    small = partial(adapted, rank=2, alpha=2, targets=["modulate"])
    told = {"watch/critic_pace": pytest.approx(2.0)}
    assert found(denoiser(), denoiser(), 20) == told
    assert found(small(denoiser()), small(denoiser()), 20) == told
    assert found(denoiser(), denoiser(), 19) == {}
    assert found(small(denoiser()), denoiser(), 20) == {}
    assert found(denoiser(), small(denoiser()), 20) == {}
    assert found(denoiser(), denoiser(), 20, "pairs") == {"watch/regression": 1.0}


def test_inputs_by_backward_simulation_have_no_gap_and_noised_real_ones_have() -> None:
    draw, times = torch.Generator().manual_seed(0), [1.0, 0.5]
    generator = EDM(MLP(dim=2), Karras())  # whose alpha is 1
    real, *noise = (torch.randn(100, 2, generator=draw) for _ in range(3))
    for kind in (FewStepSampler, ODEWalk):
        assert input_gap(kind(times), generator, noise, {}, real) == 0
    assert input_gap(NoisedReal([1.0]), generator, noise, {}, real) == 0, "one step begins at noise"
    with torch.no_grad():
        first = generator(generator.schedule.prior_std * noise[0], torch.ones(100), {})
    expected = (real - first).square().mean().sqrt() / real.std()
    found = input_gap(NoisedReal(times), generator, noise, {}, real)
    assert found == pytest.approx(expected.item(), rel=1e-4)


class ToldTheData(EDM):
    """A denoiser that says the data, and adds what its condition holds."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(MLP(dim=2), Karras())
        self.x = x

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *_: object) -> Tensor:
        return self.x[: len(x_t)] + cond["error"]


def test_the_null_of_least_error_is_the_teacher_s() -> None:
    x, noise = (torch.randn(8, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    x = x[:1].expand(8, 2)  # every row the same, so that any of them may come in a pass
    trained, other = ({"error": torch.full((8, 2), size)} for size in (0.1, 0.2))
    denoiser = ToldTheData(x)
    assert len(LEVELS) > 1
    assert null_error(denoiser, x, noise, trained, other, 3) == pytest.approx(0.25, rel=1e-4)
    assert null_error(denoiser, x, noise, other, trained, len(x)) == pytest.approx(4.0, rel=1e-4)


def test_an_average_in_float16_is_held_by_float16() -> None:
    weights = torch.randn(10000, generator=torch.Generator().manual_seed(0))
    assert share_in_float16(weights) < 0.01
    assert share_in_float16(weights.half().float()) == 1
    assert share_in_float16(weights.bfloat16().float()) > 0.99, "bfloat16 is coarser still"


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def summary(folder: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(folder, "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run whose critic is frozen, and one whose generator's updates are huge."""
    folder = tmp_path_factory.mktemp("health")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DMD2_RUN_ID", "now")
        patch.setattr(sys, "argv", sys.argv)
        dmd2("train", *FROZEN, "paths.run=frozen")
        lost = ["optimizer.generator.lr=0.03", "health.stop_on=[generator_lr_too_high]"]
        dmd2("train", *SMALL, *lost, "paths.run=lost")
    return folder


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.usefixtures("at_work")
def test_a_check_that_is_ignored_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    dmd2("train", *FROZEN, "health.ignore=[critic_frozen,teacher_bad]", "paths.run=ignored")
    dmd2("check", "run=ignored")
    said = capsys.readouterr()
    for name in ("critic_frozen", "teacher_bad"):
        assert name not in said.out and name not in said.err
    assert "drifting" in said.out


@pytest.mark.usefixtures("at_work")
def test_a_fault_is_named_wherever_people_look(capsys: pytest.CaptureFixture[str]) -> None:
    health = summary("frozen")["health"]
    assert isinstance(health, dict) and health["state"] == "unhealthy"
    (frozen,) = [v for v in health["verdicts"] if v["name"] == "critic_frozen"]
    assert frozen["since"] == 10 and frozen["until"] is None and "lr above 0" in frozen["remedy"]
    logged = {
        row["step"]: row["health/critic_frozen"] for row in read_rows(Path("frozen/metrics.csv"))
    }
    assert [logged[step] for step in ("8", "10", "24")] == ["", "1.0", "1.0"]
    page = " ".join(Path("frozen/report.html").read_text().split())
    assert 'class="badge unhealthy"' in page and "<b>critic_frozen</b> since iteration 10" in page
    dmd2("check", "run=frozen")
    said = capsys.readouterr().out
    assert said.startswith("frozen is unhealthy\n") and "critic_frozen since iteration 10" in said


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("run", ["frozen", "lost"])
def test_the_log_says_the_same_again(run: str) -> None:
    health = summary(run)["health"]
    assert isinstance(health, dict)
    again = monitor_of(Path(run))
    assert [verdict.as_dict() for verdict in again.verdicts] == health["verdicts"]
    assert health_of(Path(run))[0] == f"{run} is {health['state']}"


@pytest.mark.usefixtures("at_work")
def test_every_check_of_training_reads_numbers_that_are_logged() -> None:
    logged = set(read_rows(Path("frozen/metrics.csv"))[0])
    # Of points without classes and captions there is nothing to say.
    absent = {"watch/missing_classes", "watch/guidance", "watch/null_error"}
    absent |= {"watch/critic_pace", "watch/regression"}  # twelve updates, and no pairs
    absent |= {"watch/progress"}  # of a hundred updates
    assert {key for check in CHECKS for key in check.rule.keys} - logged == absent


@pytest.mark.usefixtures("at_work")
def test_the_pace_is_logged_from_the_twentieth_update_of_the_generator_on() -> None:
    dmd2("train", *SMALL, "max_iterations=46", "critic_head_start=3", "paths.run=settled")
    found = [
        row["step"] for row in read_rows(Path("settled/metrics.csv")) if row["watch/critic_pace"]
    ]
    assert found == ["44", "46"], "3 of the critic alone, and 20 of two"
    assert summary("settled")["generator_updates"] == 22


@pytest.mark.usefixtures("at_work")
def test_a_lost_run_is_stopped_with_its_last_state() -> None:
    found = summary("lost")
    assert found["status"] == "stopped" and found["iterations"] == 6
    assert Path("lost/checkpoints/00000006.ckpt").exists()


@pytest.mark.usefixtures("at_work")
def test_a_resumed_run_says_what_one_says_that_never_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("cut/checkpoints").mkdir(parents=True)
    for name in ("metrics.csv", "checkpoints/00000012.ckpt", "checkpoints/00000012.json"):
        Path("cut", name).write_bytes(Path("frozen", name).read_bytes())
    dmd2("train", *FROZEN, "paths.run=cut", "resume=auto")
    assert "critic_frozen" not in capsys.readouterr().err, "it was said before the checkpoint"
    assert summary("cut")["health"] == summary("frozen")["health"]
    for row, other in zip(
        read_rows(Path("cut/metrics.csv")), read_rows(Path("frozen/metrics.csv")), strict=True
    ):
        keys = [key for key in other if not key.startswith("speed/")]
        assert {key: row[key] for key in keys} == {key: other[key] for key in keys}


@pytest.mark.usefixtures("at_work")
def test_a_run_whose_health_nobody_watches_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    still = [word for word in SMALL if not word.startswith("health.")]
    dmd2("train", *still, "health=none", "max_iterations=12", "paths.run=silent")
    assert summary("silent")["health"] is None and "health" not in capsys.readouterr().err
    assert not any("health/" in key for key in read_rows(Path("silent/metrics.csv"))[0])


@pytest.mark.usefixtures("at_work")
def test_a_short_run_is_called_so_wherever_people_look(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["max_iterations=4", "health.ignore=[teacher_bad]", "paths.run=short/0"]
    dmd2("train", *SMALL, *short)
    words = state_in_words(TOO_SHORT)
    assert f"health: {words}\n" in capsys.readouterr().out
    assert summary("short/0")["health"] == {"state": TOO_SHORT, "verdicts": []}
    assert (
        f'<span class="badge too_short">{words}</span>' in Path("short/0/report.html").read_text()
    )
    dmd2("compare", "runs=short")
    assert f"| {words} |" in capsys.readouterr().out.replace("\\_", "_")
    for rows in ("as they are", "none"):
        dmd2("check", "run=short/0")
        assert capsys.readouterr().out == f"short/0 is {words}\n", rows
        Path("short/0/metrics.csv").unlink(missing_ok=True)


@pytest.mark.usefixtures("inside")
def test_a_wrong_name_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("stop_on", "ignore"):
        said = answer(capsys, "train", *SMALL, f"health.{key}=[gan_one]", f"paths.run={key}")
        assert f"health.{key} names gan_one" in said and "gan_won" in said


def test_the_page_has_every_check() -> None:
    table = website.health_page.table()
    assert all(f"| `{check.name}` | {check} |" in table for check in CHECKS)
    assert table.count("\n") == len(CHECKS) + 1
