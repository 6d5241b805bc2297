"""On a real Slurm: a sweep reports each job's end; interrupted jobs resume, bit-equal."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from cluster import Cluster, wait

from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.checkpoints import load, saved
from lives import complete, lives

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

SCRIPT = Path(__file__).parents[2] / "experiments" / "slurm" / "train.sbatch"
END = 1200  # some seconds: a signal must find the run at work
SMALL = [
    "experiment=toy2d_dmd2",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=50",
    "metric.batch_size=50",
    "metric.teacher_steps=[1]",
    "callbacks.samples=null",
    "callbacks.evaluation.every=100000",
    "checkpoint.every=100000",
    "data.batch_size=16",
    "log_every=1",
]
SWEEP = [
    "train",
    "--multirun",
    *SMALL,
    "launcher=slurm",
    "launcher.cpus_per_task=1",
    "launcher.array_parallelism=2",
]


def begin(cluster: Cluster, place: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Begin `dmd2` with its output in one pipe."""
    return subprocess.Popen(
        ["dmd2", *arguments],
        executable=str(place / "bin" / "dmd2"),
        cwd=place,
        env=cluster.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def queued(sweep: "subprocess.Popen[str]") -> list[str]:
    """The ids of a sweep's jobs, when they are in the queue."""
    assert sweep.stdout is not None
    lines = []
    for line in sweep.stdout:
        lines.append(line)
        if found := re.search(r"in the queue: ([\d_ ]+);", line):
            return found[1].split()
    raise AssertionError("".join(lines))


def script(cluster: Cluster, place: Path, *arguments: str) -> tuple[str, Path]:
    """Submit the script of those who want no launcher; the job's id and its run's directory."""
    command = ["sbatch", "--parsable", "--cpus-per-task=1", str(SCRIPT), *SMALL, *arguments]
    asked = subprocess.run(
        command, cwd=place, env=cluster.environment, capture_output=True, text=True, check=True
    )
    job = asked.stdout.strip()
    return job, place / "runs" / "toy2d_dmd2" / f"slurm-{job}"


def undisturbed(cluster: Cluster, place: Path, name: str, num: int, *arguments: str) -> Path:
    """The directory of a run that nothing disturbed, of so many ranks, not in Slurm."""
    words, said = ["train", *SMALL, f"paths.run={name}", *arguments], place / f"{name}.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        complete(lives(said, num, *words, env=cluster.environment), 1200)
    return place / name


@pytest.fixture(scope="session")
def whole(cluster: Cluster, workplace: Path) -> Path:
    """The run of one process that the others have to equal."""
    return undisturbed(cluster, workplace, "whole", 1, f"max_iterations={END}")


def assert_same_end(run: Path, whole: Path, end: int = END) -> None:
    """Weights, optimizers, scores and log are those of the undisturbed run, bit by bit."""
    ends = [load(folder / "checkpoints" / f"{end:08d}.ckpt") for folder in (whole, run)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ends[1][part], ends[0][part], rtol=0, atol=0)
    rows = [read_rows(folder / "metrics.csv") for folder in (whole, run)]
    logs = [
        [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in found]
        for found in rows
    ]
    assert logs[0] == logs[1]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, run)]
    assert (
        summaries[1]["status"] == "completed"
        and summaries[0]["students"] == summaries[1]["students"]
    )


def restarts(cluster: Cluster, job: str) -> int:
    """How often a job was queued again."""
    found = re.search(r"Restarts=(\d+)", cluster.ask("scontrol", "show", "job", job))
    assert found is not None
    return int(found[1])


def test_a_sweep_reports_how_each_job_ended(cluster: Cluster, workplace: Path, whole: Path) -> None:
    rates = "optimizer.critic.lr=1e-3,1e30,2e-3,3e-3"
    sweep = begin(cluster, workplace, *SWEEP, rates, "max_iterations=6", "hydra.sweep.dir=four")
    last = queued(sweep)[3]
    record = workplace / "four" / "toy2d_dmd2-3" / "job.json"
    wait(lambda: json.loads(record.read_text())["status"] == "running", "the last job")
    cluster.ask("scancel", "--signal=KILL", f"{last}.0")  # the step alone, as if memory had run out
    output, _ = sweep.communicate()
    assert sweep.returncode == 1
    table = [line for line in output.splitlines() if line.startswith("| toy2d_dmd2 ")]
    *scored, unscored = table
    assert sorted(line.split("|")[1].strip()[-5:] for line in scored) == ["0.001", "0.002"]
    assert unscored.startswith("| toy2d_dmd2 (not scored, failed) ") and "=1e+30 |" in unscored
    scores = [float(line.split("|")[3]) for line in scored]
    assert scores == sorted(scores)
    failed, killed = (
        output.index("failed: four/toy2d_dmd2-1 "),
        output.index("killed: four/toy2d_dmd2-3 "),
    )
    assert output[failed:killed].splitlines()[1].startswith("  dmd2: iteration ")
    assert "2 of 4 jobs completed: four" in output and (workplace / "four" / "scores.png").exists()
    states = re.findall(
        r"JobState=(\w+)", cluster.ask("scontrol", "show", "job", last.split("_")[0])
    )
    assert sorted(states) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]


def test_signals_while_torch_loads_and_while_training_change_nothing(
    cluster: Cluster, workplace: Path, whole: Path
) -> None:
    sweep = begin(
        cluster,
        workplace,
        *SWEEP,
        f"max_iterations={END}",
        "hydra.sweep.dir=one",
        "+data.num_workers=1",
    )
    (job,) = queued(sweep)
    run = workplace / "one" / "toy2d_dmd2-0"
    wait(lambda: json.loads((run / "job.json").read_text())["status"] == "running", "the job")
    cluster.ask("scancel", "--signal=USR2", job)
    wait(lambda: restarts(cluster, job) == 1, "the first restart")
    # Where the signal came late there are rows of the first life: those of the second count.
    before = len(read_rows(run / "metrics.csv"))
    wait(lambda: len(read_rows(run / "metrics.csv")) > before + 5, "some iterations")
    cluster.ask("scancel", "--signal=USR2", job)
    output, _ = sweep.communicate()
    assert sweep.returncode == 0, output
    assert restarts(cluster, job) == 2
    assert_same_end(run, whole)


def test_the_script_gets_a_signal_ahead_of_the_limit_and_resumes(
    cluster: Cluster, workplace: Path, whole: Path
) -> None:
    job, run = script(cluster, workplace, f"max_iterations={END}")
    wait(lambda: len(read_rows(run / "metrics.csv")) > 5, "some iterations")
    cluster.ask("scancel", "--signal=USR1", job)
    wait(cluster.ended, "the end of the job")
    assert restarts(cluster, job) == 1
    assert_same_end(run, whole)


def test_a_preempted_job_saves_goes_on_and_loses_nothing(
    cluster: Cluster, workplace: Path, whole: Path
) -> None:
    job, run = script(cluster, workplace, f"max_iterations={END}", "+data.num_workers=1")
    wait(lambda: len(read_rows(run / "metrics.csv")) > 5, "some iterations")
    cluster.ask("scancel", "--signal=TERM", job)
    wait(lambda: any(saved(run / "checkpoints")), "a checkpoint")
    at = int(next(saved(run / "checkpoints")).stem)
    assert 5 < at < END
    wait(lambda: int(read_rows(run / "metrics.csv")[-1]["step"]) > at, "training to go on")
    cluster.ask("scontrol", "requeue", job)
    wait(cluster.ended, "the end of the job")
    assert restarts(cluster, job) == 1
    assert_same_end(run, whole)


def test_two_nodes_of_two_ranks_get_a_signal_and_end_the_same(
    cluster: Cluster, workplace: Path
) -> None:
    end = 80  # four processes share what there is
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", f"max_iterations={end}"]
    whole4 = undisturbed(cluster, workplace, "whole4", 4, *ranks, "trainer.devices=4")
    ranks += ["trainer.devices=2", "trainer.num_nodes=2", "launcher.cpus_per_task=1"]
    sweep = begin(cluster, workplace, *SWEEP, *ranks, "hydra.sweep.dir=four_ranks")
    (job,) = queued(sweep)
    run = workplace / "four_ranks" / "toy2d_dmd2-0"
    wait(lambda: len(read_rows(run / "metrics.csv")) > 5, "some iterations")
    cluster.ask("scancel", "--signal=USR2", job)
    output, _ = sweep.communicate()
    assert sweep.returncode == 0 and restarts(cluster, job) == 1, output
    assert_same_end(run, whole4, end)
