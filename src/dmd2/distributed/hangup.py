"""A hangup (SIGHUP: a closed terminal, a dropped ssh) ends a run as Ctrl-C; nohup prevents it."""

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
    """A block in which a hangup raises KeyboardInterrupt, where it would end the process."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        leave_terminal()
        raise KeyboardInterrupt

    # Python handles signals in the main thread alone.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
