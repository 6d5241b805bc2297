"""Files that others read while they are written: the old one or the new one, never a half; and made by one alone."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write atomically: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside, no other process is that named the same path: it waits, and then finds what this one made.

    A lock on a file beside `path`, which the system frees when its holder ends. Ranks need no process group for
    it, and none waits in a collective, which would time out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
