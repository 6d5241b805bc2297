"""A sweep in this process, without Slurm: every job is reported, and the table is sorted."""

import subprocess
import sys
from pathlib import Path

import pytest

from dmd2.cli.errors import one_line
from dmd2.cli.main import main
from dmd2.io.files import write_hashed_json
from dmd2.runs.job import read_jobs, run_job, write_job
from page_runs import SUMMARY

SMALL = [
    "experiment=toy2d_dmd2",
    "max_iterations=2",
    "data.batch_size=8",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=30",
    "metric.batch_size=30",
    "metric.teacher_steps=[1]",
    "callbacks.samples=null",
]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setenv("DMD2_SITE", str(tmp_path / "site.yaml"))


def ends(*arguments: str) -> int | str | None:
    """The exit code of a command that ends with one."""
    sys.argv = ["dmd2", *arguments]
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_a_job_that_fails_leaves_the_others_and_is_reported_in_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends("train", "--multirun", *SMALL, "optimizer.critic.lr=-1,1e-3,1e-4") == 1
    output, errors = capsys.readouterr()
    assert "2 of 3 jobs completed: runs/sweeps/now" in output
    report = output[output.index("failed: runs/sweeps/now/toy2d_dmd2-0 optimizer.critic.lr=-1\n") :]
    assert report.splitlines()[1].startswith("  dmd2: optimizer.critic.lr must be a learning rate")
    assert "Traceback" not in output + errors
    rows = [
        line.split("|")[1:4] for line in output.splitlines() if line.startswith("| toy2d_dmd2 ")
    ]
    assert sorted(row[0].split("=")[1].strip() for row in rows) == ["0.0001", "0.001"]
    scores = [float(row[2]) for row in rows]
    assert scores == sorted(scores)
    assert (
        "| toy2d_dmd2 optimizer.critic.lr=0.001 | 1 |"
        in Path("runs/sweeps/now/README.md").read_text()
    )
    assert Path("runs/sweeps/now/scores.png").exists()
    page = Path("runs/sweeps/now/comparison.html").read_text()
    assert "optimizer.critic.lr must be a learning rate" in page  # of the job that failed


def test_rows_are_named_by_what_runs_were_composed_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Of single runs and of a sweep, and what was typed does not matter to who reads a run."""
    # digits have losses of conf/loss as they are; toys have their own weights.
    small = ["experiment=digits_dmd2", *SMALL[1:], "metric.suite.metrics.accuracy=null"]
    sys.argv = ["dmd2", "train", *small, "paths.run=one", "paths.cache=${oc.env:DMD2_RUN_ID}/cache"]
    main()
    sys.argv = ["dmd2", "train", "--multirun", *small, "loss=no_gan,dmd2_hinge"]
    main()
    sys.argv = ["dmd2", "compare", "runs=."]
    capsys.readouterr()
    main()
    rows = [line.split(" | ")[0].strip("| ") for line in capsys.readouterr().out.splitlines()]
    named = [row for row in rows if row.startswith("digits_dmd2")]
    assert sorted(named) == [f"digits_dmd2{n}" for n in ("", " loss=dmd2_hinge", " loss=no_gan")]
    sys.argv = ["dmd2", "sample", "run=one", "num_images=2", "out=drawn"]
    main()
    assert Path("drawn/000001.png").exists()


def test_a_job_that_was_killed_shows_the_end_of_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.log").write_text("slurmstepd: error: oom_kill event\n")
    write_job(Path("sweep/a-0"), ["seed=0"], "running", Path("job.log"))
    assert read_jobs(Path("sweep"))[Path("sweep/a-0")]["status"] == "killed"
    assert ends("compare", "runs=sweep") == 2
    printed = capsys.readouterr()
    assert (
        "killed: sweep/a-0" in printed.out
        and "oom_kill" in printed.out
        and "no completed run" in printed.err
    )


@pytest.mark.parametrize("text", ["[]", "12", "[" * 100_000, '{"status": "completed"}'])
def test_a_damaged_record_of_a_job_is_named_and_the_others_are_read(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(Path("sweep/a-0"), ["seed=0"], "completed")
    write_job(Path("sweep/a-1"), ["seed=1"], "completed")
    Path("sweep/a-0/job.json").write_text(text)
    found = {str(place): job["status"] for place, job in read_jobs(Path("sweep")).items()}
    assert found == {"sweep/a-0": "damaged", "sweep/a-1": "completed"}
    assert "sweep/a-0/job.json is damaged" in capsys.readouterr().err
    write_hashed_json(Path("sweep/a-1/summary.json"), SUMMARY)
    sys.argv = ["dmd2", "compare", "runs=sweep", "out=out"]
    main()
    assert capsys.readouterr().err.count("job.json is damaged") == 1, "it is said once"


def test_a_job_that_resumes_forgets_the_failure_of_an_earlier_attempt() -> None:
    def fail() -> None:
        raise ValueError("once")

    assert not run_job(Path("job"), [], fail, one_line)
    assert read_jobs(Path("."))[Path("job")]["status"] == "failed"
    assert run_job(Path("job"), [], lambda: None, one_line)
    assert (
        read_jobs(Path("."))[Path("job")]["status"] == "completed"
        and not Path("job/error.txt").exists()
    )


def test_an_error_of_the_program_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError("ours")

    assert not run_job(Path("job"), [], fail, one_line)
    text = Path("job/error.txt").read_text()
    assert text.startswith("Traceback") and text.endswith("KeyError: 'ours'\n")
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("site", "overrides", "words"),
    [
        (None, [], ["site.yaml", "site.template.yaml", "cp "]),
        ("partition: ???", [], ["partition", "site.yaml"]),
        ("account: me", ["launcher.qos=long"], ["no value for partition", "null"]),
        ("partiton: main", [], ["partiton", "partition"]),
    ],
)
def test_a_site_that_is_not_filled_in_is_refused(
    capsys: pytest.CaptureFixture[str], site: str | None, overrides: list[str], words: list[str]
) -> None:
    if site is not None:
        Path("site.yaml").write_text(site + "\n")
    assert ends("train", "--multirun", "launcher=slurm", "seed=0,1", *overrides) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dmd2: ") and all(word in line for word in words), line


def test_a_config_is_checked_before_it_is_queued(capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.yaml").write_text("partition: null\n")
    assert ends("train", "--multirun", "launcher=slurm", "critic_updates=1,0") == 2
    assert "critic_updates" in capsys.readouterr().err
    assert not list(Path(".").rglob("job.json"))


def test_signals_are_held_until_there_are_handlers() -> None:
    code = (
        "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive', flush=True); "
        "signal.signal(signal.SIGUSR2, lambda *_: print('heard')); "
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})"
    )
    command = [sys.executable, "-m", "dmd2.distributed.slurm", sys.executable, "-c", code]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        == "alive\nheard\n"
    )


@pytest.mark.parametrize("verb", ["pretrain", "pairs"])
def test_a_teacher_is_trained_by_every_verb_that_needs_one(verb: str) -> None:
    small = ["teacher.pretrain.max_iterations=1", "pairs.num_pairs=4", "pairs.solver.num_steps=2"]
    sys.argv = ["dmd2", verb, "experiment=digits_dmd", *small]
    main()
    assert len(list(Path("cache/teachers").glob("*.safetensors"))) == 1
