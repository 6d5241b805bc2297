"""Output whose reader has gone (`dmd2 ... | head`): the rest is dropped, the work goes on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Outliving:
    """A text stream that goes to nowhere from the moment on when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._redirect()
            return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or drop what was not written yet."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._redirect()

    def _redirect(self) -> None:
        # The descriptor itself: the stream still has a buffer to flush, and Python does so at
        # exit; processes that are started later inherit it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def outliving_readers() -> Iterator[None]:
    """For a block, stdout and stderr raise nothing when their readers are gone."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Outliving(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
