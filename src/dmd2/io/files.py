"""Atomic writes, JSON, hashes, cache keys, and file locks between processes."""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dmd2.io.replace import replacing, sweep_halves_of
from dmd2.io.small_files import read_small

OWN_HASH = "sha256_of_content"
"""The key of a JSON file's hash of all its other keys."""


@contextmanager
def fsynced(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write; its bytes are on disk, not only in the page cache, when the block ends.

    Raises OSError that names the file where they cannot be written; the file is then removed.
    """
    try:
        with name_in_errors(path), path.open("wb") as file:
            yield file
            file.flush()  # Python's buffer first: fsync knows only what the system has
            os.fsync(file.fileno())
    except OSError:
        # The rest of a file would keep a full disk full.
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def name_in_errors(path: str | Path) -> Iterator[None]:
    """Add the file's name to an OSError raised in this block."""
    try:
        yield
    except OSError as error:
        # The system names the file where opening fails, not where writing or fsync does.
        error.filename = error.filename or str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically: readers see the old file or the new one, also after a crash.

    Parent folders are made. Raises OSError that names the file; the old one then stays.
    """
    with replacing(path) as partial, fsynced(partial) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ValueError that names one that is damaged or too long."""
    with name_in_errors(path):
        return parse_json(read_small(path), str(path))


def parse_json(text: bytes, name: str) -> Any:
    """The content of JSON text, with or without a byte order mark.

    Raises ValueError that names `name`, the place it is from, where it is damaged, or has a key
    twice: Python would take the last one without a word.
    """
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:  # nested too deep for Python, or no UTF-8
        raise ValueError(f"{name} is damaged, it is no JSON that is read here: {error}") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict[str, Any]()
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} comes twice; leave one")
        content[key] = value
    return content


def refused(path: Path, reason: str) -> ValueError:
    """The error of a file that may hold code, of which none was run."""
    return ValueError(f"{path} is refused, and nothing in it was run: {reason}")


def write_hashed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically, with a hash of itself.

    For what this program trusts when it reads it again (`read_hashed_json`).
    """
    write_json(path, {**content, OWN_HASH: _hash_of(content)})


def read_hashed_json(path: Path) -> dict[str, Any]:
    """What `write_hashed_json` wrote.

    Raises ValueError that names a file that is damaged in any way, or is none of ours.
    """
    content = read_json(path)
    if not isinstance(content, dict) or OWN_HASH not in content:
        raise ValueError(f"{path} is damaged, or was not written by this version: it has no hash")
    if content.pop(OWN_HASH) != _hash_of(content):
        raise ValueError(f"{path} is damaged or was edited: its hash differs")
    return content


def _hash_of(content: Mapping[str, Any]) -> str:
    # Of the text as it will be read: a tuple is a list then, and a key that is a number a text.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def key_of(*parts: Any) -> str:
    """A cache key: the first 16 hexadecimal digits of the SHA-256 of plain values.

    Of what only says where things are nothing enters (`without_places`).
    """
    # Sorted, since the order of keys in a YAML file has no meaning.
    text = json.dumps(without_places(parts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_places(value: Any) -> Any:
    """Plain values without what says where things are, and not what they are.

    A key `cache` of any dict is left out, and a `_target_` of this project keeps its last name
    alone: a class may move to another module.
    """
    if isinstance(value, dict):
        named = {k: _last_name(v) if k == "_target_" else v for k, v in value.items()}
        return {k: without_places(v) for k, v in named.items() if k != "cache"}
    return [without_places(inner) for inner in value] if isinstance(value, list | tuple) else value


def _last_name(target: str) -> str:
    return target.rpartition(".")[2] if target.startswith("dmd2.") else target


def link_to(link: Path, target: str) -> None:
    """Make or replace a symbolic link atomically; a relative `target` starts at its folder."""
    # A link cannot be overwritten: a new one is made beside it, and renamed over it.
    with replacing(link) as partial:
        partial.symlink_to(target)


def discard(folder: Path) -> None:
    """Remove a folder, if it is there; other processes see it whole or not at all."""
    # Renamed first: removing takes time, and somebody could read the half that is left.
    gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.gone")
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.gone"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed here, or is at it
    with suppress(FileNotFoundError):  # another process may be removing it, too
        folder.rename(gone)
        shutil.rmtree(gone)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """An exclusive lock on `path`: the block waits until no other process is inside it.

    The lock is on a file beside `path`; the system frees it when its holder ends, however it ends.
    What killed holders left of `path` is removed.
    """
    # A file lock and no barrier: it needs no process group, holds between separate runs, and a
    # long wait is no collective that times out.
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lock file is never removed: a process that waits on a removed one would get a lock that
    # nobody else sees.
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep_halves_of(path)
        yield


def try_lock(path: Path) -> IO[str]:
    """Lock `path` without waiting, as long as the returned file is open.

    Raises BlockingIOError where another process holds the lock.
    """
    lock = path.with_name(f".{path.name}.lock").open("w")
    # `lockf` and not `flock`: a forked worker shares a flock, and where the run is killed it would
    # hold the lock for the seconds that it outlives the run.
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock
