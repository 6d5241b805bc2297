"""Files that are whole or as before, and a claim that ends with the process that made it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmd2.io.files import key_of, read_json, try_lock, write_bytes

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
"""Claims a path, and has a worker that outlives it, as one that gathers batches does for some
seconds.
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed `path`."""
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
def test_a_full_disk_leaves_the_file_as_it_was_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_bytes(path, b"before")
    path.with_suffix(f".partial{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*a\.partial"):
        write_bytes(path, b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and path.read_bytes() == b"before"


def test_what_is_cached_does_not_depend_on_where_other_things_are():
    node = {"captions": ["a"], "inner": [{"cache": "here", "num": 1}], "cache": "here"}
    elsewhere = {"captions": ["a"], "inner": [{"cache": "there", "num": 1}], "cache": None}
    without = {"captions": ["a"], "inner": [{"num": 1}]}
    assert key_of(node, 3) == key_of(elsewhere, 3) == key_of(without, 3)
    assert (
        len({key_of(without, 3), key_of(without, 4), key_of(without | {"captions": ["b"]}, 3)}) == 3
    )


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")
