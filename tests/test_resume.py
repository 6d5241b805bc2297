"""A run that was ended goes on as if it had not been: same weights, same log, same pictures."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from dmd2.cli.main import main
from dmd2.io.replace import unused_name
from dmd2.training import checkpoints
from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.checkpoints import load, newest, saved
from lives import Life
from test_files import holding

SMALL = [
    "experiment=digits_4step",
    "data.batch_size=8",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=30",
    "metric.num_reference=40",
    "metric.batch_size=30",
    "metric.teacher_steps=[1]",
    "max_iterations=12",
    "critic_updates=5",
    "accumulate=2",
    "log_every=2",
    "callbacks.evaluation.every=4",
    "callbacks.samples.every=6",
    "callbacks.samples.num_samples=20",
    "checkpoint.every=3",
]


def train(*arguments: str) -> None:
    sys.argv = ["dmd2", "train", *SMALL, *arguments]
    main()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        train(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DMD2_RUN_ID", "now")
        patch.setattr(sys, "argv", sys.argv)
        train("paths.run=whole", "checkpoint.keep=9")
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


def log(run: str) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what a clock says."""
    rows = read_rows(Path(run, "metrics.csv"))
    return [
        {key: value for key, value in row.items() if not key.startswith("speed/")} for row in rows
    ]


def assert_same_end(run: str) -> None:
    """Weights, averages, optimizers, scores, log and pictures are those of the undisturbed run, bit
    by bit.
    """
    ends = [load(Path(name, "checkpoints", "00000012.ckpt")) for name in ("whole", run)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ends[1][part], ends[0][part], rtol=0, atol=0)
    assert log(run) == log("whole")
    scores = [
        json.loads(Path(name, "summary.json").read_text())["students"] for name in ("whole", run)
    ]
    assert scores[0] == scores[1]
    pictures = [Path(name, "samples", "00000012.png").read_bytes() for name in ("whole", run)]
    assert pictures[0] == pictures[1]


def test_a_log_has_one_row_an_iteration_and_no_gap() -> None:
    assert [int(row["step"]) for row in log("whole")] == [2, 4, 6, 8, 10, 12]


@pytest.fixture(scope="module")
def hashed_by_fork9(workplace: Path) -> list[str]:
    """The files that were hashed while the run `fork9` went on from the checkpoint of iteration 9,
    in a directory where a kill had left halves of files.
    """
    seen, hashed = [], checkpoints.hashed
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.setattr(sys, "argv", sys.argv)
        patch.setattr(checkpoints, "hashed", lambda p: seen.append(p.name) or hashed(p))
        for name in ("metrics.csv", "checkpoints/1.ckpt"):
            half = unused_name(Path("fork9", name))
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_text("step,generator/lo")
        train("paths.run=fork9", "resume=whole/checkpoints/00000009.ckpt")
    return seen


@pytest.mark.parametrize("iteration", [3, 6, 9])
@pytest.mark.usefixtures("hashed_by_fork9")
def test_a_run_goes_on_from_any_checkpoint_as_if_it_had_not_stopped(iteration: int) -> None:
    if iteration != 9:
        train(f"paths.run=fork{iteration}", f"resume=whole/checkpoints/{iteration:08d}.ckpt")
    assert_same_end(f"fork{iteration}")


def test_a_checkpoint_is_hashed_once(hashed_by_fork9: list[str]) -> None:
    """Large checkpoints take minutes to hash: rank 0 does it when it chooses one."""
    assert hashed_by_fork9 == ["00000009.ckpt"]


@pytest.mark.usefixtures("hashed_by_fork9")
def test_halves_of_files_that_a_kill_left_are_removed() -> None:
    assert not list(Path("fork9").rglob("*.partial*"))


def killed(run: str, *arguments: str, when: str) -> None:
    """Begin a run and SIGKILL it as soon as the file `when` is in its directory."""
    life = Life(Path(f"{run}.txt"), "train", *SMALL, f"paths.run={run}", *arguments)
    while not list(Path(run).glob(when)) and life.poll() is None:
        time.sleep(0.002)
    life.kill()
    assert life.code == -signal.SIGKILL, life.said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "when",
    ["checkpoints/00000003.ckpt.*.partial", "checkpoints/00000006.json", "samples/00000006.png"],
)
def test_a_killed_run_goes_on_by_itself(when: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    killed(run, "resume=auto", when=when)
    assert not Path(run, "summary.json").exists(), "it was too fast to be killed"
    train(f"paths.run={run}", "resume=auto")
    assert_same_end(run)


def test_damage_is_seen_and_the_one_before_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("whole", "damaged")
    for number in (3, 12):
        for end in ("ckpt", "json"):
            Path("damaged/checkpoints", f"{number:08d}.{end}").unlink()
    nine, six = reversed(list(saved(Path("damaged/checkpoints"))))
    bytes_ = bytearray(nine.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    nine.write_bytes(bytes_)
    assert newest(Path("damaged/checkpoints")).path == six
    assert "00000009.ckpt is damaged" in capsys.readouterr().err
    assert "damaged" in refused(capsys, "paths.run=other", f"resume={nine}")
    six.write_bytes(six.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in Path("damaged").rglob("*") if path.is_file()}
    line = refused(capsys, "paths.run=damaged", "resume=auto")
    assert "no checkpoint of 2 in damaged/checkpoints is whole" in line and "00000009.ckpt" in line
    assert "resume=null paths.run=DIR" in line
    assert before == {path: path.read_bytes() for path in before}
    with pytest.raises(ValueError, match="is whole"):
        newest(Path("damaged/checkpoints"))


def test_another_run_is_refused_by_the_key_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = "resume=whole/checkpoints/00000006.ckpt"
    line = refused(capsys, "paths.run=x", checkpoint, "seed=1")
    assert "seed was 0 and is 1" in line and "resume_allow=[" in line
    line = refused(capsys, "paths.run=x", checkpoint, "teacher.pretrain.max_iterations=3")
    assert "teacher.pretrain.max_iterations was 2 and is 3" in line
    train(
        "paths.run=longer",
        checkpoint,
        "max_iterations=13",
        "resume_allow=[max_iterations,optimizer.lr_factor]",
    )
    assert json.loads(Path("longer/summary.json").read_text())["iterations"] == 13


def test_a_refused_run_leaves_the_directory_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path("whole").rglob("*") if path.is_file()}

    before = files()
    assert "seed was 0" in refused(capsys, "paths.run=whole", "resume=auto", "seed=1")
    assert files() == before


def test_going_on_from_an_older_checkpoint_forgets_the_later_ones() -> None:
    shutil.copytree("whole", "back")
    train(
        "paths.run=back",
        "resume=back/checkpoints/00000003.ckpt",
        "checkpoint.every=5",
        "checkpoint.keep=9",
    )
    assert [int(path.stem) for path in saved(Path("back/checkpoints"))] == [3, 5, 10, 12]


def test_a_manifest_that_a_kill_left_alone_is_removed() -> None:
    folder = Path("alone/checkpoints")
    shutil.copytree("whole", "alone")
    for name in ("00000001.json", "00000007.json"):
        (folder / name).write_text("{}")
    train("paths.run=alone", "resume=auto")
    left = sorted(path.name for path in folder.iterdir())
    assert left == sorted(path.name for path in Path("whole/checkpoints").iterdir())


def test_a_directory_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with holding(Path("whole/run")):
        assert "a run is at work in whole" in refused(capsys, "paths.run=whole", "resume=auto")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names open files by /proc")
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_the_one_before_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full(file: int) -> None:
        if "00000006.ckpt" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        line = refused(capsys, "paths.run=full")
    assert (
        line.startswith("dmd2: ")
        and "No space left on device" in line
        and "full/checkpoints/00000006" in line
    )
    assert json.loads(Path("full/summary.json").read_text())["status"] == "failed"
    assert [int(path.stem) for path in saved(Path("full/checkpoints"))] == [3]
    train("paths.run=full", "resume=auto")
    assert_same_end("full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, mounted at a directory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_and_a_read_only_disk_are_named_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_disk / "run"
    line = refused(capsys, f"paths.run={run}")
    assert line.startswith("dmd2: ") and "No space left on device" in line and str(run) in line
    assert not list(run.rglob("*.partial*")) and newest(run / "checkpoints") is None
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    train(f"paths.run={run}", "resume=auto")
    assert_same_end(str(run))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    line = refused(capsys, f"paths.run={run}", "resume=auto")
    assert "Read-only file system" in line and str(run) in line


def test_data_that_changed_or_is_gone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        picture = Path("pictures", str(i % 10), f"{i}.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * i).save(picture)
    data = [
        "data=images",
        "data.source=pictures",
        "data.resolution=8",
        "+data.channels=1",
        "data.batch_size=8",
    ]
    short = [
        "max_iterations=3",
        "paths.run=pictured",
        "metric.num_samples=20",
        "+data.test_fraction=0.25",
    ]
    train(*data, *short)
    Image.new("L", (8, 8), 255).save("pictures/3/13.png")
    line = refused(capsys, *data, *short, "resume=auto")
    assert (
        "another run: dataset.source.n" in line
        and "newest was" in line
        and "is 3/13.png of" in line
    )
    Path("pictures").rename("elsewhere")
    assert "pictures" in refused(capsys, *data, *short, "resume=auto")


def test_a_torn_row_of_the_log_is_made_again() -> None:
    train("paths.run=torn", "max_iterations=8", "resume_allow=[max_iterations]")
    with Path("torn/metrics.csv").open("ab") as file:
        file.write(b"1")  # of 10
    train("paths.run=torn", "resume=auto", "resume_allow=[max_iterations,optimizer.lr_factor]")
    assert [int(row["step"]) for row in log("torn")] == [2, 4, 6, 8, 10, 12]


def workers_of(life: Life) -> list[int]:
    """The process ids of those that gather batches for a run."""
    children = Path(f"/proc/{life.pid}/task/{life.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_a_worker_that_dies_ends_the_run_with_a_line_and_the_run_goes_on() -> None:
    more = [
        "paths.run=worker",
        "+data.num_workers=1",
        "max_iterations=100000",
        "callbacks.evaluation=null",
    ]
    life = Life(Path("worker.txt"), "train", *SMALL, *more)
    while not list(Path("worker/checkpoints").glob("*.ckpt")) and life.poll() is None:
        time.sleep(0.02)
    for worker in workers_of(life):
        os.kill(worker, signal.SIGKILL)
    code, text = life.end(600)
    assert code == 2, text
    assert text.splitlines()[-1].startswith("dmd2: DataLoader worker"), text
    assert json.loads(Path("worker/summary.json").read_text())["status"] == "failed"
    assert len(log("worker")) > 0 and newest(Path("worker/checkpoints")) is not None


def test_the_newest_and_the_best_are_kept() -> None:
    train(
        "paths.run=few", "checkpoint.every=2", "checkpoint.keep=2", "metric.primary=nearest_train"
    )
    best = json.loads(Path("few/summary.json").read_text())["best"]["iteration"]
    assert [int(path.stem) for path in saved(Path("few/checkpoints"))] == sorted({best, 10, 12})
