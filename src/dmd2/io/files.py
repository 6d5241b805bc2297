"""Files that others read while they are written: the old one or the new one, never a half; and made
by one alone.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def fsynced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write whose bytes are on the disk, not only on their way, when the block ends.

    Where they cannot be, nothing is left of it; raises OSError that names it.
    """
    try:
        with name_in_errors(path), path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Let an OSError of this block name the file: the system does so where opening fails, not where
    writing does.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically: readers see the old file or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    with fsynced(partial) as file:
        file.write(content)
    partial.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same for values that JSON knows."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The values in a JSON file; raises ValueError that names one that is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is no JSON: {error}") from error


def key_of(*parts: Any) -> str:
    """A short hash of plain values, the name of something cached; a key `cache` in them is only a
    place.
    """
    return hashlib.sha256(json.dumps(_without_places(parts), sort_keys=True).encode()).hexdigest()[
        :16
    ]


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items() if key != "cache"}
    return [_without_places(inner) for inner in value] if isinstance(value, list | tuple) else value


def link_to(link: Path, target: str) -> None:
    """Let a symbolic link point to `target`, from now on."""
    partial = link.with_name(f".{link.name}{os.getpid()}")
    partial.symlink_to(target)
    partial.replace(link)


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def discard(folder: Path) -> None:
    """Remove a folder, of which nobody sees a part meanwhile; one that is not there is removed
    already.
    """
    gone = folder.with_name(f".{folder.name}.gone{os.getpid()}")
    shutil.rmtree(gone, ignore_errors=True)  # of a process that was killed here
    with suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process is that named the same path: it waits, and then finds what this one
    made.

    A lock on a file beside `path`, which the system frees when its holder ends. Ranks need no
    process group for
    it, and none waits in a collective, which would time out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> IO[str]:
    """Take `path` while the file that is returned is open; raises BlockingIOError where another
    process has it.

    A lock of this process alone: one that its workers inherit would outlive it by the seconds that
    they do.
    """
    lock = path.with_name(f".{path.name}.lock").open("w")
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock
