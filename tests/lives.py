"""Lives of a verb: `dmd2 VERB ...` in a fork of this process, which has torch loaded already, told
apart by their exit codes and words, and killed at instants that are drawn.

A fork may train although its parent has: torch has one thread here, and no GPU (conftest.py).
"""

import faulthandler
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

import dmd2.runs.export  # noqa: F401
import dmd2.runs.run  # noqa: F401  # loaded before the forks
from dmd2.cli.main import main


class Life:
    """A process that runs `dmd2` with arguments, or `run`; `prepare` is called in it before.

    What it prints on stdout and stderr goes to one file, which `end` reads.
    """

    def __init__(
        self,
        said: Path,
        *arguments: str,
        env: Mapping[str, str | None] | None = None,
        prepare: Callable[[], object] = lambda: None,
        run: Callable[[], object] = main,
    ) -> None:
        self.said = said
        said.write_text("")  # it may be killed before it says anything
        self.code: int | None = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the fork prints it again
        self.pid = os.fork()
        if not self.pid:
            self._live(arguments, env or {}, prepare, run)

    def _live(
        self,
        arguments: tuple[str, ...],
        env: Mapping[str, str | None],
        prepare: Callable[[], object],
        run: Callable[[], object],
    ) -> None:
        code = 1
        try:
            with self.said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            # By lines: one that is killed has said what it said.
            sys.stdout, sys.stderr = (os.fdopen(i, "w", buffering=1) for i in (1, 2))
            for key, value in env.items():
                os.environ.pop(key, None) if value is None else os.environ.update({key: value})
            sys.argv = ["dmd2", *arguments]
            # It ends then at the latest, and says where it was.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(1200)
            # That of bars is shared by all forks otherwise, and one that is killed would keep it.
            tqdm.set_lock(threading.RLock())
            prepare()
            run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, if it still lives, and wait until it is gone."""
        self.send(signal.SIGKILL)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self, seconds: float = 90) -> tuple[int, str]:
        """Wait for its end, and kill it where it has none; its exit code, and what it said."""
        limit = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        if self.poll() is None:
            self.send(signal.SIGALRM)  # to say where it is
            time.sleep(1)
            self.kill()
            raise AssertionError(f"no end after {seconds} seconds: {self.said.read_text()}")
        assert self.code is not None
        return self.code, self.said.read_text()


def lives(
    said: Path,
    num: int,
    *arguments: str,
    env: Mapping[str, str | None] | None = None,
    run: Callable[[], object] = main,
) -> list[Life]:
    """One process, or the ranks that torchrun would start."""
    if num == 1:
        return [Life(said, *arguments, env=env, run=run)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = [{**(env or {}), **shared, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(num)]
    return [Life(said.with_suffix(f".{i}"), *arguments, env=own[i], run=run) for i in range(num)]


def complete(processes: list[Life], seconds: float) -> None:
    """Wait until all have done their work; where one fails, kill the others, and say why."""
    limit = time.monotonic() + seconds
    try:
        while None in (codes := [process.poll() for process in processes]):
            if any(codes) or time.monotonic() > limit:
                break
            time.sleep(0.005)
    finally:
        for process in processes:
            process.kill()
    texts = [f"exit code {x.code}: {x.said.read_text()}" for x in processes if x.code]
    assert not texts, "\n".join(texts)


def files(folder: Path, pattern: str = "**/*") -> set[tuple[Path, int]]:
    """The files of a folder that match, with their sizes."""
    found = set()
    with suppress(FileNotFoundError):  # a folder was there a moment ago
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                found.add((path, path.stat().st_size))
    return found


def instant(
    folder: Path, patterns: tuple[str, ...], seconds: float, draw: random.Random
) -> Iterator[bool]:
    """Whether an instant of a life that begins now has come, as often as one asks: by the clock,
    at most `seconds` from now, or soon after a file of `folder` changed that matches a pattern.
    """
    pattern, left = draw.choice(("clock", *patterns)), draw.randint(1, 4)
    end = time.monotonic() + draw.uniform(0, seconds)
    while pattern == "clock":
        yield time.monotonic() > end
    before = files(folder, pattern)
    while left:
        yield False
        now = files(folder, pattern)
        left, before = left - bool(now - before), now
    time.sleep(draw.uniform(0, 0.02))
    yield True
