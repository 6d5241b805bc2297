"""Verbs where their surroundings are poor, or others disturb them: one line that names what is
wrong, nothing half-written, and afterwards the same command ends as an undisturbed one.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lives import Life, instant
from verbs import PAIRS, VERBS, place_for

pytestmark = pytest.mark.slow
Undisturbed = Callable[[str], dict[str, bytes]]


@pytest.fixture(scope="session")
def undisturbed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What a verb makes that nobody disturbs."""
    folder, made = tmp_path_factory.mktemp("undisturbed"), dict[str, dict[str, bytes]]()

    def make(name: str) -> dict[str, bytes]:
        if name not in made:
            completed(name, place_for(name, folder / name, trained), trained)
            made[name] = VERBS[name].made(folder / name)
        return made[name]

    return make


def begun(name: str, place: Path, trained: Path, said: str = "said") -> Life:
    return Life(place.with_name(f"{place.name}.{said}.txt"), *VERBS[name].typed(place, trained))


def completed(name: str, place: Path, trained: Path) -> None:
    code, text = begun(name, place, trained).end()
    assert code == 0, text


def refused(name: str, place: Path, trained: Path) -> str:
    """The one line of a verb that cannot do its work."""
    code, text = begun(name, place, trained).end()
    assert code == 2 and "Traceback" not in text, text
    line = text.splitlines()[-1]
    assert line.startswith("dmd2: "), text
    return line


@pytest.mark.parametrize("name", VERBS)
def test_two_at_once_are_both_right_or_the_second_is_refused(
    name: str, trained: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    whole, place = undisturbed(name), place_for(name, tmp_path / "place", trained)
    ends = [life.end() for life in [begun(name, place, trained, said) for said in ("one", "two")]]
    for code, text in ends:
        line = text.splitlines()[-1]
        is_refused = " is at work in " in line or " is not empty; name another folder" in line
        assert code == (2 if is_refused else 0) and "Traceback" not in text, text
    assert 0 in [code for code, _ in ends]
    assert VERBS[name].made(place) == whole


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of some megabytes, mounted at a directory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", VERBS)
def test_a_full_and_a_read_only_disk_are_named_and_the_same_command_goes_on_when_there_is_room(
    name: str, disk: Path, trained: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    whole, place = undisturbed(name), place_for(name, disk / "place", trained)
    place.with_name("place.said.txt").symlink_to(tmp_path / "said.txt")  # not on this disk
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    line = refused(name, place, trained)
    assert "Read-only file system" in line and str(place) in line
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    line = refused(name, place, trained)
    assert str(place) in line
    assert "No space left on device" in line or "do not fit on the disk" in line
    VERBS[name].check_whole(place, whole)
    assert not list(disk.rglob("*.partial*"))
    (disk / "filler").unlink()
    completed(name, place, trained)
    assert VERBS[name].made(place) == whole


def test_all_verbs_work_without_home_locale_temporary_folder_or_open_umask(
    trained: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """One process for all: what they read of the surroundings is read when Python starts."""
    places = {name: place_for(name, tmp_path / name, trained) for name in VERBS}
    commands = [VERBS[name].typed(place, trained) for name, place in places.items()]
    code = (
        "import os, sys; os.umask(0o077)\nfrom dmd2.cli.main import main\n"
        f"for words in {commands}: sys.argv = ['dmd2', *words]; main()"
    )
    poor = {"LC_ALL": "C", "TMPDIR": str(tmp_path / "nowhere"), "OMP_NUM_THREADS": "1"}
    env = {key: value for key, value in os.environ.items() if key != "HOME"} | poor
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    for name, place in places.items():
        assert VERBS[name].made(place) == undisturbed(name), name
        copied = {path.name for path in (trained / "run").rglob("*")}
        new = [p for p in place.rglob("*") if p.is_file() and p.name not in copied]
        assert new and not any(path.stat().st_mode & 0o077 for path in new), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", VERBS)
def test_a_signal_twice_ends_a_verb_without_a_traceback_and_the_same_command_goes_on(
    name: str, number: signal.Signals, trained: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    whole, draw = undisturbed(name), random.Random(name + number.name)
    place = place_for(name, tmp_path / "place", trained)
    life = begun(name, place, trained)
    # Not in the first tenth of a second: the fork is no verb yet.
    time.sleep(0.1)
    come = instant(place, ("**/*",), 1, draw)
    while life.poll() is None and not next(come):
        time.sleep(0.01)
    life.send(number)
    time.sleep(draw.uniform(0, 0.05))
    life.send(number)
    code, text = life.end()
    assert code in (0, 130) and "Traceback" not in text, text
    VERBS[name].check_whole(place, whole)
    if name != "export" or not (place / "out").exists():
        completed(name, place, trained)
    assert VERBS[name].made(place) == whole


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_is_stopped_for_a_while_goes_on(
    name: str, trained: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    whole, place = undisturbed(name), place_for(name, tmp_path / "place", trained)
    life, come = begun(name, place, trained), instant(place, ("**/*",), 1, random.Random(name))
    while life.poll() is None and not next(come):
        time.sleep(0.01)
    life.send(signal.SIGSTOP)
    time.sleep(0.2)
    life.send(signal.SIGCONT)
    code, text = life.end()
    assert code == 0, text
    assert VERBS[name].made(place) == whole


@pytest.fixture(scope="module")
def broken(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the digits that makes NaN."""
    folder = tmp_path_factory.mktemp("broken")
    (name,) = (name for name in undisturbed("pairs") if name.startswith("cache/teachers/"))
    (folder / "whole.safetensors").write_bytes(undisturbed("pairs")[name])
    tensors = load_file(folder / "whole.safetensors")
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first] * torch.nan}, folder / "nan.safetensors")
    return folder / "nan.safetensors"


TRAIN = ["max_iterations=2", "log_every=1", "data.batch_size=8", "callbacks.samples=null"]
SCORED = ["metric.num_samples=20", "metric.teacher_steps=[1]", *TRAIN]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairs", *PAIRS], "the teacher's samples 0 to 3 are not finite"),
        (["train", *PAIRS, *TRAIN], "the teacher's samples 0 to 3 are not finite"),
        (["train", "experiment=digits_dmd2", *SCORED], "the teacher's samples 0 to"),
        (
            ["train", "experiment=digits_dmd2", *TRAIN, "callbacks.evaluation=null"],
            "iteration 1: generator/",
        ),
    ],
)
def test_a_teacher_that_makes_nan_is_named(
    words: list[str], said: str, broken: Path, trained: Path, tmp_path: Path
) -> None:
    places = [f"paths.run={tmp_path}/run", f"paths.cache={trained}/kept"]
    code, text = Life(tmp_path / "said.txt", *words, *places, f"teacher.weights={broken}").end()
    line = text.splitlines()[-1]
    assert code == 2 and line.startswith("dmd2: ") and said in line, text


def test_a_student_that_makes_nan_is_named(trained: Path, tmp_path: Path) -> None:
    tensors = load_file(trained / "run/checkpoints/student.safetensors")
    broken = {name: x * torch.nan if x.is_floating_point() else x for name, x in tensors.items()}
    save_file(broken, tmp_path / "nan.safetensors")
    words = ["evaluate", f"run={trained}/run", f"weights={tmp_path}/nan.safetensors"]
    code, text = Life(tmp_path / "said.txt", *words).end()
    assert code == 2 and "the student's samples 0 to" in text.splitlines()[-1], text
    words = ["sample", f"run={trained}/run", f"weights={tmp_path}/nan.safetensors"]
    code, text = Life(tmp_path / "said.txt", *words, f"out={tmp_path}/out").end()
    assert code == 2 and "the student's samples 0 to" in text.splitlines()[-1], text
    assert not list((tmp_path / "out").glob("*.png"))
