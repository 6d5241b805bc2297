"""Starts the ranks of a run on this machine, one a device, passes signals on, and ends them
together.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from typing import Any

from torch.distributed import TCPStore

GRACE_SECONDS = 20
"""For the others, when a rank failed: rank 0 may be writing a summary."""
INTERRUPTED = 130

Explain = Callable[[BaseException], str | None]
"""A user's mistake in one line; None where only a traceback helps."""


def launch(task: Callable[[Any], None], argument: Any, num: int, explain: Explain) -> None:
    """Run `task(argument)` in `num` new processes and return when all are done.

    Raises ChildProcessError that names the first rank that failed, KeyboardInterrupt where a signal
    ended them.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        # the store is here, so no port can be taken in between
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    spawn, ranks, endings = get_context("spawn"), [], []
    for i in range(num):
        ending, reports = spawn.Pipe(duplex=False)
        own = shared | {"RANK": str(i), "LOCAL_RANK": str(i)}
        ranks.append(
            spawn.Process(
                target=_rank, args=(task, argument, own, explain, reports), name=f"rank {i}"
            )
        )
        endings.append(ending)
    with forward_signals(ranks) as told:
        for process in ranks:
            process.start()
        failed = first_failure(ranks)
        end(ranks)
    if failed is not None:
        account = f"rank {failed} of {num} {_account(ranks[failed], endings[failed])}"
        if not told:
            raise ChildProcessError(account)
        print(
            f"dmd2: {account}", file=sys.stderr
        )  # a rank that was still starting ends by the signal itself
    if failed is not None or any(process.exitcode == INTERRUPTED for process in ranks):
        raise KeyboardInterrupt


def first_failure(ranks: Sequence[SpawnProcess]) -> int | None:
    """Wait for all ranks, or for the first that fails: its number."""
    running = {process.sentinel: i for i, process in enumerate(ranks)}
    while running:
        for sentinel in connection.wait(list(running)):
            i = running.pop(sentinel)  # type: ignore[arg-type]
            ranks[i].join()
            if ranks[i].exitcode not in (0, INTERRUPTED):
                return i
    return None


def end(ranks: Sequence[SpawnProcess]) -> None:
    """Give the ranks some time to end by themselves, and kill those that do not."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


@contextmanager
def forward_signals(ranks: Sequence[SpawnProcess]) -> Iterator[list[int]]:
    """Send on to every rank what this process is told by SIGINT and SIGTERM; the signals so far."""
    told: list[int] = []

    def handle(number: int, frame: Any) -> None:
        told.append(number)
        for process in ranks:
            if process.is_alive():
                os.kill(process.pid or 0, number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _rank(
    task: Callable[[Any], None],
    argument: Any,
    environment: dict[str, str],
    explain: Explain,
    reports: connection.Connection,
) -> None:
    os.setsid()  # a terminal's Ctrl-C goes to the launcher alone, which passes it on once
    os.environ.update(environment)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        task(argument)
    except (KeyboardInterrupt, SystemExit):  # Lightning exits at a second signal
        sys.exit(INTERRUPTED)
    except Exception as error:
        reports.send((explain(error), traceback.format_exc()))
        sys.exit(1)


def _end_with_launcher() -> None:
    launcher = parent_process()
    assert launcher is not None
    launcher.join()
    os._exit(1)


def _account(process: SpawnProcess, ending: connection.Connection) -> str:
    """How a rank failed; what deserves its traceback gets it on stderr."""
    code = process.exitcode
    assert code is not None
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; the others were ended"
    try:
        line, trace = ending.recv() if ending.poll() else (None, "")
    except EOFError:  # it ended before it could say why
        line, trace = None, ""
    if line is not None:
        return f"failed: {line}"
    sys.stderr.write(trace)
    return f"failed with exit code {code}; the others were ended"
