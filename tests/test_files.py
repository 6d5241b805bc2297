"""Atomic writes, cache keys, and a lock that ends with the process that holds it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest

from dmd2.io.files import (
    discard,
    key_of,
    link_to,
    locked,
    read_hashed_json,
    read_json,
    try_lock,
    write_bytes,
    write_hashed_json,
)
from dmd2.io.hub import file_of
from dmd2.io.replace import replacing, sweep, unused_name

needs_full = pytest.mark.skipif(
    not Path("/dev/full").is_char_device(), reason="there is no /dev/full"
)
HOLDER = """
import os, sys, time
from pathlib import Path
from dmd2.io.files import try_lock
lock = try_lock(Path(sys.argv[1]))
if os.fork():
    print("held", flush=True)
time.sleep(60)
"""
"""Locks a path, and has a worker that outlives it, as a data loader's does for some seconds."""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `path`."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_claim_refuses_others_and_ends_with_its_process_whatever_its_workers_do(
    tmp_path: Path,
) -> None:
    with holding(tmp_path / "run") as process:
        with pytest.raises(BlockingIOError):
            try_lock(tmp_path / "run")
        process.kill()
        process.wait()
        try_lock(tmp_path / "run").close()


@needs_full
def test_a_full_disk_leaves_the_file_as_it_was_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=1))
    path = tmp_path / "a.json"
    write_bytes(path, b"before")
    unused_name(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*/a\.json"):
        write_bytes(path, b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and path.read_bytes() == b"before"


def test_what_a_killed_process_left_stops_nobody_and_is_swept(tmp_path: Path) -> None:
    old = [unused_name(tmp_path / name) for name in ("in/a", "in/a.json", "latest")]
    # What other programs have not ended yet.
    others = [tmp_path / "in" / name for name in ("partial.txt", "film.partial", "a.1.partial")]
    young = unused_name(tmp_path / "b")
    for path in (*old, young, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    gone = tmp_path / ".queue.0.gone"
    gone.mkdir()
    for path in (*old, *others):
        os.utime(path, (0, 0))
    for _ in range(2):
        write_bytes(tmp_path / "in" / "a", b"whole")
        link_to(tmp_path / "latest", "in")
        (tmp_path / "queue").mkdir()
        discard(tmp_path / "queue")
        assert not (tmp_path / "queue").exists() and not gone.exists()
    assert (tmp_path / "latest" / "a").read_bytes() == b"whole"
    sweep(tmp_path)
    assert young.exists() and not any(path.exists() for path in old)
    sweep(tmp_path, 0)
    assert not young.exists() and all(path.exists() for path in others)


def test_halves_of_a_file_or_folder_are_swept_where_it_is_locked(tmp_path: Path) -> None:
    halves = [unused_name(tmp_path / "a"), unused_name(unused_name(tmp_path / "a"))]
    others = [unused_name(tmp_path / name) for name in ("a.json", "ba")]
    halves[0].mkdir()
    for path in (halves[0] / "inside", halves[1], *others):
        path.write_text("half")
    with locked(tmp_path / "a"):
        assert not any(path.exists() for path in halves) and all(p.exists() for p in others)


def test_a_folder_takes_the_place_of_an_empty_one_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("one", "two"):
        with suppress(OSError), replacing(tmp_path / "out") as partial:
            partial.mkdir()
            (partial / name).write_text("whole")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_cached_does_not_depend_on_where_other_things_are():
    node = {"captions": ["a"], "inner": [{"cache": "here", "num": 1}], "cache": "here"}
    elsewhere = {"captions": ["a"], "inner": [{"cache": "there", "num": 1}], "cache": None}
    without = {"captions": ["a"], "inner": [{"num": 1}]}
    assert key_of(node, 3) == key_of(elsewhere, 3) == key_of(without, 3)
    assert (
        len({key_of(without, 3), key_of(without, 4), key_of(without | {"captions": ["b"]}, 3)}) == 3
    )


def test_what_is_cached_does_not_depend_on_the_module_of_a_class():
    """A class of ours may move; one of somebody else's is known by its whole name."""
    nodes = [
        {"inner": [{"_target_": f"{module}.Digits", "num": 1}]}
        for module in ("dmd2.data", "dmd2.data.digits", "other.data", "other.digits")
    ]
    first, second, third, fourth = map(key_of, nodes)
    assert first == second and len({first, third, fourth}) == 3


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("module", ["dmd2.io", "dmd2.distributed.slurm", "dmd2.runs.job"])
def test_a_slurm_job_has_handlers_before_torch_is_loaded(module: str) -> None:
    """Loading torch takes seconds, in which a signal ahead of a limit would not be handled."""
    loaded = f"import sys, {module}; print({{'torch', 'numpy'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr


def test_a_missing_extra_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"make install EXTRAS=dev,text, or pip install '\.\[text\]'"
    ):
        file_of("somebody/something", "unet/config.json")


def test_a_bit_of_a_hashed_file_that_flips_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"iteration": 250, "rows": [1, 2.5, None], "name": "a"}
    write_hashed_json(path, content)
    assert read_hashed_json(path) == content
    whole = path.read_bytes()
    for i in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            assert read_hashed_json(path) == content
        except ValueError as error:
            assert "a.json" in str(error)


def test_an_error_in_words_of_its_own_keeps_them(tmp_path: Path):
    with pytest.raises(OSError, match=r"^no part of it is there$"), replacing(tmp_path / "out"):
        raise FileNotFoundError("no part of it is there")
    with pytest.raises(OSError, match=r"out'$"), replacing(tmp_path / "out") as partial:
        partial.read_bytes()
