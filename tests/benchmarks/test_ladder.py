"""Ladders of few steps: closed forms of exact teachers, and the benchmark's table."""

import sys
from pathlib import Path

import pytest
import torch

from dmd2.cli.main import main
from dmd2.diffusion.ladder import denoised_path, equal_parts, gaussian_path, shares
from dmd2.diffusion.schedules import VP, Flow, Karras
from dmd2.nets.toy import GaussianMixture

SCHEDULES = {"karras": Karras(), "vp": VP.scaled_linear(), "flow": Flow(shift=3.0)}
TIMES = [1 - i / 250 for i in range(250)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_path_of_an_exact_gaussian_teacher_is_its_closed_form(name: str):
    schedule, std = SCHEDULES[name], 0.7
    teacher = GaussianMixture(schedule, torch.zeros(1, 64), torch.tensor([std]), torch.ones(1))
    noise = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    found = denoised_path(teacher, schedule, noise, {}, TIMES)
    expected = gaussian_path(schedule, std, TIMES)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * std)


def test_equal_parts_of_gaussian_data_are_at_known_noise_levels():
    """x0_hat is i/4 of the data where sigma / (alpha std) = sqrt((4 / i)^2 - 1)."""
    for schedule in SCHEDULES.values():
        times = [1 - i / 1000 for i in range(1000)]
        path = gaussian_path(schedule, 0.5, times)
        ladder = equal_parts(times, path, 4)
        assert shares(times, path, ladder) == pytest.approx([0.25] * 4, abs=1e-6)
        assert ladder[0] == 1
        if schedule.alpha_sigma(torch.ones(1))[0] == 0:  # x0_hat then starts from nothing
            alpha, sigma = schedule.alpha_sigma(torch.tensor(ladder[1:]))
            levels = [0.5 * (16 / i**2 - 1) ** 0.5 for i in (1, 2, 3)]
            assert (sigma / alpha).tolist() == pytest.approx(levels, rel=0.01)


def test_equal_parts_of_two_points_are_where_samples_are_as_decided():
    """x0_hat = tanh(x_t / sigma^2) goes from 0 to 1 or -1: after i of N parts its size is i/N."""
    means, stds = torch.tensor([[-1.0], [1.0]]), torch.full((2,), 1e-3)
    teacher = GaussianMixture(Karras(), means, stds, torch.full((2,), 0.5))
    noise = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    path = denoised_path(teacher, Karras(), noise, {}, TIMES)
    assert float(path[-1]) == pytest.approx(1, abs=0.02)
    ladder = equal_parts(TIMES, path, 4)
    for i, t in enumerate(ladder):
        # A walk of its own, which ends there.
        times = [1 - j / 300 * (1 - t) for j in range(301)]
        sizes: list[float] = []

        def watched(x_t: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]):
            x0 = teacher(x_t, t, cond)
            sizes.append(float(x0.abs().mean()))  # noqa: B023
            return x0

        denoised_path(watched, Karras(), noise, {}, times)
        assert sizes[-1] == pytest.approx(i / 4, abs=0.03)


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    sys.argv = ["dmd2", "benchmark", "part=ladder", *arguments]
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    return [row.strip("| ").split(" | ") for row in rows]


def test_benchmark_shows_schedules_and_a_run_s_teacher(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = table(capsys)
    assert rows[1][:4] == [
        "Stable Diffusion",
        "equal t",
        "1, 0.75, 0.5, 0.25",
        "999, 749, 499, 249",
    ]
    assert {row[5] for row in rows if row[1] == "equal change"} == {"25, 25, 25, 25"}
    monkeypatch.setattr(
        sys, "argv",
        ["dmd2", "train", "--cfg", "job", "--resolve", "experiment=toy2d_dmd2",
         "teacher.pretrain.max_iterations=2", "teacher.pretrain.data.batch_size=8"],
    )  # fmt: skip
    main()
    Path("config.yaml").write_text(capsys.readouterr().out)
    *rows, (typed,) = table(capsys, "source=.", "part.num_walks=4", "part.num_solver_steps=10")
    assert typed == f"sampler.times=[{rows[0][2].replace(' ', '')}]"
    assert [row[1] for row in rows] == ["equal change", "equal t"]
    assert rows[0][2].startswith("1, ") and rows[0][5] == "25, 25, 25, 25"


def test_documentation_has_the_noise_levels_of_both_ladders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = Path(__file__).parents[2].joinpath("docs/math.md").read_text()
    after = text.split("$\\sigma / \\alpha$ of the published rows")[1].split("\n\n")[0]
    documented = [line.strip("| ").split(" | ")[1:] for line in after.splitlines()[2:]]
    rows = [[cell.replace("inf", "$\\infty$") for cell in row] for row in table(capsys)]
    assert documented == [
        [rule[3], rule[4], published[4], published[5]]
        for rule, published in zip(rows[::2], rows[1::2], strict=True)
    ]
