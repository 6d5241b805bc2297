"""Progress bars with an estimate of the time left; in a log file a line now and then."""

import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO, TextIO

from tqdm import tqdm

CONTROL = re.compile(r"\x1b\[\w|[\r\n]")
"""With what a bar is drawn over its last state."""
DELAY = 2
"""Seconds of a wait before it gets a bar."""
LOOK_EVERY = 0.5
"""Seconds between two looks at how much of a file is written."""
LOG_INTERVAL = 30
"""Seconds between two lines of a bar in a log file, at least."""


class LogLines:
    """Stands for a terminal where there is none: every state of a bar becomes a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write what a bar would draw, without what moves the cursor."""
        if line := CONTROL.sub("", text).strip():
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def progress_bar(desc: str, total: int | None, **options: Any) -> "tqdm[Any]":
    """A bar of tqdm's with its further `options`, on stderr, of rank 0 alone.

    It comes after `DELAY` seconds, and goes when the work is done.
    """
    shown: dict[str, Any] = {"dynamic_ncols": True, "mininterval": 0.5}
    if not sys.stderr.isatty():
        # No bar is drawn, as the numbers say the same; tqdm must not hurry the next line either.
        form = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt} in {elapsed}, {remaining} left"
        shown = {"file": LogLines(sys.stderr), "mininterval": LOG_INTERVAL, "maxinterval": 3600}
        shown |= {"bar_format": form + ", {rate_fmt}{postfix}"} if total else {}
    # By the environment: hashes and downloads come before ranks have met.
    shown["disable"] = os.environ.get("RANK", "0") != "0"
    return tqdm(desc=desc, total=total, **{"delay": DELAY, "leave": False} | shown | options)


def bytes_bar(desc: str, total: int | None) -> "tqdm[Any]":
    """The same of bytes; `total` None is not known."""
    return progress_bar(desc, total, unit="B", unit_scale=True, unit_divisor=1024)


def hashed(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits, with a bar."""
    found = hashlib.sha256()
    with path.open("rb") as file, bytes_bar(f"hashing {path.name}", num_bytes_of([path])) as bar:
        while block := file.read(2**20):
            found.update(block)
            bar.update(len(block))
    return found.hexdigest()


class Followed(io.FileIO):
    """A file to read, which moves a bar along."""

    def __init__(self, path: Path, bar: "tqdm[Any]") -> None:
        super().__init__(path)
        self.bar = bar

    def readinto(self, buffer: Any) -> int:
        """Read what there is room for, and move the bar, at most to its end."""
        num_bytes = super().readinto(buffer) or 0
        # The list at the end of an archive is read besides its members.
        self.bar.update(min(num_bytes, self.bar.total - self.bar.n))
        return num_bytes


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file, open in a block that reads it, with a bar."""
    with (
        bytes_bar(f"reading {path.name}", num_bytes_of([path])) as bar,
        io.BufferedReader(Followed(path, bar)) as file,
    ):
        yield file


@contextmanager
def writing(path: Path, name: str, num_bytes: int) -> Iterator[None]:
    """A bar around a block that writes a file, or the files of a folder, of about so many bytes.

    name  What the bar calls it.

    A library that writes says nothing meanwhile, so a thread looks at what is there.
    """
    ended = Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY):
            with suppress(OSError):  # a file may get another name meanwhile
                bar.update(num_bytes_of([path, *path.rglob("*")]) - bar.n)

    with bytes_bar(f"writing {name}", num_bytes) as bar:
        thread = Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def num_bytes_of(paths: list[Path]) -> int:
    """Bytes of some files together; those that are not there have none."""
    return sum(path.stat().st_size for path in paths if path.is_file())
