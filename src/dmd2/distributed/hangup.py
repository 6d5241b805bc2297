"""A hangup (SIGHUP: a closed terminal, a dropped ssh) and SIGTERM end a command as Ctrl-C does.

Under nohup hangups do not.
"""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def is_ignored() -> bool:
    """Whether hangups are ignored since this process started, as nohup does: they stay so."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def leave_terminal() -> None:
    """Send what is still printed nowhere: a terminal that is gone answers writes with errors."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):  # closed already
            # A terminal is a character device; files and pipes are kept.
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """A block in which what would end the process, hangup or SIGTERM, raises KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        raise KeyboardInterrupt

    # Python handles signals in the main thread alone.
    is_main = threading.current_thread() is threading.main_thread()
    both = (signal.SIGHUP, signal.SIGTERM) if is_main else ()
    numbers = [number for number in both if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
