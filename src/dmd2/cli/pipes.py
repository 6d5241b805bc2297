"""Output that nobody takes (`dmd2 ... | head`, a full disk): it is dropped, the work goes on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Outliving:
    """A text stream that goes to nowhere from the moment on when nobody takes it any more.

    refusal  Why, where it is not that its reader has gone, e.g. a full disk.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # Python has none in place of a stream that was closed: `>&-`.
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.refusal: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._redirect(error)
            return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or drop what was not written yet."""
        try:
            self._stream.flush()
        except OSError as error:
            self._redirect(error)

    def _redirect(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.refusal = error
        # The descriptor itself: the stream still has a buffer to flush, and Python does so at
        # exit; processes that are started later inherit it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def outliving_readers() -> Iterator[None]:
    """For a block, stdout and stderr raise nothing when nobody takes what is written.

    It ends with exit code 2 and a line on stderr where stdout was refused, e.g. by a full disk.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Outliving(stream) for stream in before)
    out: Any = sys.stdout
    try:
        yield
        out.flush()
        if out.refusal is not None:
            print(f"dmd2: stdout cannot be written: {out.refusal.strerror}", file=sys.stderr)
            sys.exit(2)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
