"""What a person sees of a run: its directory, its verbs, its ends."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import escape
from PIL import Image
from safetensors.torch import load_file

from dmd2.cli.main import main
from dmd2.io.files import read_hashed_json
from dmd2.runs.load import load, load_student
from dmd2.runs.page.curves import place_of
from dmd2.runs.page.glossary import SCORES
from dmd2.runs.report import write_page
from dmd2.training import checkpoints
from dmd2.training.callbacks.csv_logger import read_rows
from docs_hooks import website
from lives import Life, complete, lives
from test_files import holding

SMALL = [
    "data.batch_size=8",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=30",
    "metric.teacher_steps=[1]",
]
RUN = Path("runs/digits_dmd2/now")


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one finished run of six iterations, scored every three."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DMD2_RUN_ID", "now")
        patch.setattr(sys, "argv", sys.argv)
        dmd2("train", *SMALL, "max_iterations=6", "log_every=2", "callbacks.evaluation.every=3")
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_a_run_starts_from_what_another_left() -> None:
    files = {name: RUN / "checkpoints" / f"{name}.safetensors" for name in ("student", "critic")}
    start = [
        f"weights={files['student']}",
        f"critic_weights={files['critic']}",
        "paths.run=onwards",
    ]
    still = ["optimizer.generator.lr=0.0", "optimizer.critic.lr=0.0", "max_iterations=1"]
    dmd2("train", *SMALL, *start, *still, "callbacks.evaluation=null", "callbacks.samples=null")
    for name, path in files.items():
        before, after = load_file(path), load_file(f"onwards/checkpoints/{name}.safetensors")
        assert before.keys() == after.keys()
        assert all(torch.allclose(before[key], after[key]) for key in before), name


def test_the_summary_says_what_happened() -> None:
    summary = json.loads((RUN / "summary.json").read_text())
    expected = {
        "status": "completed",
        "experiment": "digits_dmd2",
        "iterations": 6,
        "generator_updates": 2,
        "seed": 0,
    }
    assert {key: summary[key] for key in expected} == expected
    for key in ("wall_seconds", "images_per_second", "peak_memory_bytes"):
        assert summary[key] > 0
    assert set(summary["metrics"]) == set(summary["floor"]) == set(summary["teacher"]["1"])
    assert set(summary["students"]) == {"ema_0.97716", "raw"}
    assert summary["baselines"]["class_gaussian"]["rfd"] > summary["floor"]["rfd"]
    # One step of the ODE from noise to data is what an untrained one-step student makes.
    assert summary["baselines"]["untrained_student"] == pytest.approx(
        summary["teacher"]["1"], rel=1e-4
    )
    assert torch.__version__.startswith(summary["versions"]["torch"].split("+")[0])


def test_metrics_hold_scores_losses_and_diagnostics_by_group() -> None:
    rows = list(csv.DictReader((RUN / "metrics.csv").open()))
    scored = [int(row["step"]) for row in rows if row["score/raw/rfd"]]
    logged = [int(row["step"]) for row in rows if row["critic/loss_denoising"]]
    assert scored == [3, 6] and logged == [2, 4, 6]
    for key in (
        "generator/loss_dm",
        "generator/gan_to_dm",
        "generator/sample_gradient_dm",
        "generator/sample_mean",
        "generator/sample_std",
        "generator/score_gap_t0.50",
        "generator/gradient_norm",
        "critic/accuracy_real",
        "critic/accuracy_fake",
        "critic/gradient_norm",
        "speed/images_per_second",
        "generator/num_scrubbed",
    ):
        assert key in rows[0], key


def test_the_teacher_is_trained_once_and_the_scores_repeat(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.safetensors")}
    dmd2("train", *SMALL, "max_iterations=6", "callbacks.evaluation.every=3", "paths.run=again")
    assert {
        path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.safetensors")
    } == before
    first, second = (json.loads((run / "summary.json").read_text()) for run in (RUN, Path("again")))
    assert first["students"] == second["students"]


def test_what_is_cached_and_damaged_is_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    kept = [*Path("cache/references").glob("*.json"), *Path("cache").rglob("*.safetensors")]
    kept = [path for path in kept if path.parent.name != "teachers"]
    assert len(kept) == 3
    before = {path: path.read_bytes() for path in kept}
    for path, content in before.items():
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    dmd2("train", *SMALL, "max_iterations=6", "callbacks.evaluation.every=3", "paths.run=mended")
    lines = capsys.readouterr().err
    assert all(f"{path} is damaged" in lines and path.read_bytes() == before[path] for path in kept)
    first, second = (read_hashed_json(run / "summary.json") for run in (RUN, Path("mended")))
    for key in ("students", "teacher", "floor", "baselines"):
        assert first[key] == second[key]


def test_samples_do_not_depend_on_how_many_and_how_they_are_batched() -> None:
    dmd2("sample", f"run={RUN}", "num_images=12", "out=twelve", "batch_size=5")
    dmd2("sample", f"run={RUN}", "num_images=7", "out=seven")
    names = sorted(path.name for path in Path("seven").glob("0*.png"))
    assert len(names) == 7 and len(list(Path("twelve").glob("0*.png"))) == 12
    for name in names:
        one, two = (np.asarray(Image.open(Path(folder) / name)) for folder in ("twelve", "seven"))
        assert one.shape == (8, 8)
        assert (
            np.abs(one.astype(int) - two.astype(int)).max() <= 1
        )  # a matrix product may round by its batch


def test_a_notebook_draws_what_the_command_draws() -> None:
    dmd2("sample", f"run={RUN}", "num_images=7", "out=command", "seed=3")
    images = load(RUN).sample(7, seed=3)
    assert images.dtype == torch.uint8 and images.shape == (7, 1, 8, 8)
    for i, image in enumerate(images):
        saved = np.asarray(Image.open(f"command/{i:06d}.png"))
        assert np.abs(saved.astype(int) - image[0].cpu().numpy()).max() <= 1
    assert torch.equal(load(RUN, "raw").sample(2), load(RUN, "raw").sample(3)[:2])
    with pytest.raises(ValueError, match="no weights 'ema_2'; choose from ema_"):
        load(RUN, "ema_2")
    with pytest.raises(FileNotFoundError, match="there is no run at runs/gone"):
        load("runs/gone")
    with pytest.raises(ValueError, match="num must be a whole number of at least 1, got 0"):
        load(RUN).sample(0)


def test_a_run_of_an_older_version_is_answered_with_the_new_names(tmp_path: Path) -> None:
    text = (RUN / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text + "rung_layer: null\nmax_faults: 0\n")
    expected = (
        r"config\.yaml is of an older version .*rung_layer is now critic_step_layer, max_faults"
    )
    with pytest.raises(ValueError, match=expected):
        load(tmp_path)


@pytest.mark.slow
def test_two_ranks_draw_and_score_as_one_does() -> None:
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "--no-python",
        sys.executable,
    ]
    words = ["sample", f"run={RUN}", "batch_size=5", "num_images=12", "out=of_two"]
    start = [sys.executable, *launcher, "-c", "from dmd2.cli.main import main; main()", *words]
    done = subprocess.run(start, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = ["evaluate", f"run={RUN}", "batch_size=5", "num_samples=20", "weights=raw"]
    complete(lives(Path("of_two.txt"), 2, *words), 600)
    found = json.loads((RUN / "evaluation.json").read_text())
    dmd2("sample", f"run={RUN}", "batch_size=5", "num_images=12", "out=of_one")
    dmd2("evaluate", f"run={RUN}", "batch_size=5", "num_samples=20", "weights=raw")
    assert found == json.loads((RUN / "evaluation.json").read_text())
    names = [f"{i:06d}.png" for i in range(12)]
    for name in names:
        assert (Path("of_two") / name).read_bytes() == (Path("of_one") / name).read_bytes()
    assert sorted(path.name for path in Path("of_two").glob("[!.]*")) == [*names, "sheet.png"]


def test_evaluate_repeats_the_score_of_the_run_at_any_batch_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dmd2("evaluate", f"run={RUN}", "batch_size=11")
    found, summary = (
        json.loads((RUN / f"{name}.json").read_text()) for name in ("evaluation", "summary")
    )
    for name, scores in summary["students"].items():
        assert found["students"][name] == pytest.approx(scores, rel=1e-3)
    assert found["metrics"] == found["students"]["ema_0.97716"]
    assert (found["best"]["of"], summary["best"]["of"]) == (2, 4)
    assert "real, held" in capsys.readouterr().out


def test_a_second_evaluate_of_a_run_is_refused_in_a_line_while_the_first_is_at_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with holding(RUN / "scoring"), pytest.raises(SystemExit) as stop:
        dmd2("evaluate", f"run={RUN}", "num_samples=20")
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and f"dmd2 evaluate is at work in {RUN} already" in line
    dmd2("evaluate", f"run={RUN}", "num_samples=20", "weights=raw")


def test_a_run_without_metrics_that_is_shorter_than_the_interval_shows_its_end() -> None:
    dmd2("train", *SMALL[:2], "metric=none", "max_iterations=3", "paths.run=unscored")
    assert [path.name for path in Path("unscored/samples").iterdir()] == ["00000003.png"]
    page = Path("unscored/report.html").read_text()
    assert "iteration 3<" in page and 'id="scores"' not in page
    assert "<td>max_iterations</td>" in page  # what differs from the experiment


def test_the_page_is_written_while_the_run_goes_and_no_run_ends_for_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def write_and_fail(folder: Path, summary: Mapping[str, Any]) -> None:
        write_page(folder, summary)
        page = (folder / "report.html").read_text()
        seen.append((summary["iterations"], '<span class="badge running">' in page))
        raise OSError("no room")

    monkeypatch.setattr("dmd2.runs.run.write_page", write_and_fail)
    often = ["callbacks.report.every=1", "callbacks.evaluation.every=2"]
    dmd2("train", *SMALL, *often, "max_iterations=3", "paths.run=followed")
    assert seen == [(1, True), (2, True)]
    assert "followed/report.html could not be written: no room" in capsys.readouterr().err
    assert '<span class="badge completed">' in Path("followed/report.html").read_text()


def test_raw_and_averaged_weights_are_two_students() -> None:
    students = [load_student(RUN) for _ in range(3)]
    for student, name in zip(students, (None, "ema_0.97716", "raw"), strict=True):
        student.read(name)
    slim, mean, raw = (student.generator.state_dict() for student in students)
    assert all(torch.equal(slim[key], mean[key]) for key in slim)
    assert any(not torch.equal(raw[key], mean[key]) for key in raw)
    with pytest.raises(ValueError, match=r"choose from ema_0\.97716, raw"):
        students[0].read("ema_0.5")


def test_compare_makes_one_table_of_many_runs(capsys: pytest.CaptureFixture[str]) -> None:
    dmd2(
        "train",
        "--multirun",
        *SMALL,
        "max_iterations=2",
        "experiment=digits_dmd2,digits_no_gan",
        "seed=0,1",
    )
    sweep = max(Path("runs/sweeps").iterdir())
    Path("table").mkdir()
    Path("table/README.md").write_text(
        "before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n"
    )
    dmd2("compare", f"runs={sweep}", "out=table")
    table = Path("table/README.md").read_text()
    assert table.startswith("before\n") and table.endswith("\nafter\n") and "old" not in table
    assert "| digits_dmd2 | 2 |" in table and "| digits_no_gan | 2 |" in table and "±" in table
    assert "| teacher, 1 NFE |" in table and "| class gaussian |" in table
    assert Path("table/scores.png").stat().st_size > 0
    page = Path("table/comparison.html").read_text()
    assert "4 runs in 2 rows" in page and "samples of digits_no_gan" in page


def test_a_number_that_is_not_finite_stops_the_run_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        dmd2(
            "train",
            *SMALL,
            "max_iterations=20",
            "log_every=5",
            "optimizer.critic.lr=1e30",
            "paths.run=diverged",
        )
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "iteration " in line and "critic/" in line and "not finite" in line
    summary = json.loads(Path("diverged/summary.json").read_text())
    said = line.removeprefix("dmd2: ")
    assert (summary["status"], summary["error"]) == ("failed", f"FloatingPointError: {said}")
    page = Path("diverged/report.html").read_text()
    assert '<span class="badge failed">' in page and escape(said) in page
    assert "dmd2 sample" not in page  # it has no weights


def test_every_logged_key_is_explained_on_the_site() -> None:
    pages = website.metrics_page
    explained, logged = pages.rows(), next(csv.reader((RUN / "metrics.csv").open()))[1:]
    of_scores = {key.rpartition("/")[2] for key in logged if key.startswith("score/")}
    assert of_scores <= SCORES.keys()
    keys = {place_of(key)[0] for key in logged if not key.startswith("score/")}
    patterns = {re.escape(row).replace(r"\*", ".*"): text for row, text in explained.items()}
    found = {key: [row for row in patterns if re.fullmatch(row, key)] for key in keys}
    assert all(found.values()), found
    assert all(explained.values()) and all(row in pages.logged() for row in explained)
    # And nothing else is named but what a run of this length does not log yet.
    named = {row for row, columns in pages.ranges().items() if "digits_4step" in columns}
    assert {row for row in named - keys if not row.startswith("watch/")} == set()
    assert all(f" | {label} | " in pages.logged() for label in pages.bar_labels().values())


def test_wandb_offline_gets_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is an optional extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    dmd2("train", *SMALL, "max_iterations=2", "log_every=1", "logger=wandb", "paths.run=logged")
    assert Path("logged/metrics.csv").exists()
    dmd2(
        "train",
        *SMALL,
        "max_iterations=2",
        "log_every=1",
        "logger=wandb",
        "paths.run=logged",
        "resume=auto",
    )
    page = Path("logged/wandb_id.txt").read_text()
    parts = list(Path("logged/wandb").glob("offline-run-*"))
    assert len(parts) == 2 and all(part.name.endswith(f"-{page}") for part in parts), (
        "a resumed run has one page"
    )


def wait_for_rows(process: "subprocess.Popen[bytes] | Life") -> None:
    """Return when the run `stopped` has logged, or has ended."""
    while not read_rows(Path("stopped/metrics.csv")) and process.poll() is None:
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_ends_within_an_iteration_with_a_checkpoint_and_a_summary(
    number: signal.Signals,
) -> None:
    shutil.rmtree("stopped", ignore_errors=True)
    arguments = [
        *SMALL,
        "max_iterations=100000",
        "callbacks.evaluation=null",
        "paths.run=stopped",
        "log_every=1",
    ]
    if number == signal.SIGINT:  # once in an interpreter of its own, which also has to end
        code = "from dmd2.cli.main import main; main()"
        command = [sys.executable, "-c", code, "train", *arguments]
        with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
            wait_for_rows(process)
            process.send_signal(number)
            assert process.wait(timeout=600) == 130
    else:
        # Tests may run under nohup, which would keep the run from them.
        heard = partial(signal.signal, number, signal.SIG_DFL)
        life = Life(Path("stopped.txt"), "train", *arguments, prepare=heard)
        wait_for_rows(life)
        for _ in range(2):  # of the system, and of the shell
            life.send(number)
        found, text = life.end(200)  # within the test's own limit: it then says where it hangs
        assert found == 130, text
    summary = json.loads(Path("stopped/summary.json").read_text())
    assert summary["status"] == "interrupted" and 0 < summary["iterations"] < 100000
    path = checkpoints.newest(Path("stopped/checkpoints")).path
    assert path is not None
    state = checkpoints.load(path)
    assert state["global_step"] == summary["iterations"]
    assert not any("teacher" in key for key in state["state_dict"])
    assert Path("stopped/checkpoints/student.safetensors").exists()


@pytest.mark.slow
def test_nohup_keeps_a_run_from_hangups() -> None:
    arguments = [*SMALL, "max_iterations=60", "callbacks.evaluation=null", "paths.run=kept"]
    code = "from dmd2.cli.main import main; main()"
    command = ["nohup", sys.executable, "-c", code, "train", *arguments, "log_every=1"]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while not read_rows(Path("kept/metrics.csv")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=600) == 0
    assert json.loads(Path("kept/summary.json").read_text())["iterations"] == 60
