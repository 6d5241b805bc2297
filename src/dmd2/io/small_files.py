"""Reads our own small files whole: regular ones alone, and never more than a bound of bytes."""

import os
import stat
from pathlib import Path

MAX_BYTES = 256 * 2**20
"""The most that a file read here may have; ours and those of pipelines have some kilobytes."""


def read_small(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises OSError where there is none, and ValueError that names what is longer, or no file: a
    pipe would be waited for, and a device has no end.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except IsADirectoryError as error:
        raise ValueError(f"{path} is damaged: it is a folder, and no file; take it away") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is damaged: it is a pipe or a device; take it away")
        # What is read is counted, and not what the system says of its size.
        if len(content := file.read(most + 1)) > most:
            raise ValueError(f"{path} is damaged: it has more than {most:,} bytes")
    return content


def read_small_text(path: Path, most: int = MAX_BYTES) -> str:
    """The same as text, with or without a byte order mark; ValueError where it is no UTF-8."""
    try:
        return read_small(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged, it is no text: {error}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # to open a pipe waits for its writer otherwise
