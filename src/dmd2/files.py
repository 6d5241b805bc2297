"""Files that others read while they are written: the old one or the new one, never a half."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def synced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write whose bytes are on the disk, not only on their way, when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically: readers see the old file or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    with synced(partial) as file:
        file.write(content)
    partial.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same for values that JSON knows."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
