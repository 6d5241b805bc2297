"""Launch the ranks of a run on this machine, one process a device; forward signals to them.

Where one rank fails, the others are ended too.
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

from dmd2.distributed import hangup
from dmd2.io.shown import Explain

# For the other ranks, after one has failed: rank 0 may be writing a summary.
GRACE_SECONDS = 20
INTERRUPTED = 130  # the shell's exit code after Ctrl-C: 128 + SIGINT


def launch(task: Callable[[Any], None], argument: Any, num: int, explain: Explain) -> None:
    """Run `task(argument)` in `num` new processes, and return when all have ended.

    Raises ChildProcessError that names the first rank that failed, and KeyboardInterrupt where a
    signal ended them.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        # This process serves the store: a port that was only looked up could be taken by another
        # program before rank 0 binds it.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        # They are all started here, and one that ends is noticed: a busy machine may take its time.
        "DMD2_JOIN_SECONDS": "1800",
    }
    # Spawn, since CUDA does not survive a fork.
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
    # Handlers before the first start: a signal in between would end this process alone.
    with forward_signals(ranks) as received:
        for process in ranks:
            process.start()
        failed = first_failure(ranks)
        end(ranks)
    if failed is not None:
        account = f"rank {failed} of {num} {_account(ranks[failed], endings[failed])}"
        if not received:
            raise ChildProcessError(account)
        # A rank that was still starting had no handler yet, and the signal killed it: the run
        # was interrupted all the same.
        print(f"dmd2: {account}", file=sys.stderr)
    if failed is not None or any(process.exitcode == INTERRUPTED for process in ranks):
        raise KeyboardInterrupt


def first_failure(ranks: Sequence[SpawnProcess]) -> int | None:
    """Wait until all ranks have ended, or the first has failed; return the number of that one."""
    running = {process.sentinel: i for i, process in enumerate(ranks)}
    while running:
        for sentinel in connection.wait(list(running)):
            i = running.pop(sentinel)  # type: ignore[arg-type]
            ranks[i].join()
            # One that was interrupted has saved, and the others end by the same signal.
            if ranks[i].exitcode not in (0, INTERRUPTED):
                return i
    return None


def end(ranks: Sequence[SpawnProcess]) -> None:
    """Wait for the ranks to end, `GRACE_SECONDS` in all, and kill those that do not."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()  # no effect on one that has ended
        process.join()


@contextmanager
def forward_signals(ranks: Sequence[SpawnProcess]) -> Iterator[list[int]]:
    """Send SIGINT, SIGTERM and hangups on to every rank; yields the list of those received."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        if number == signal.SIGHUP:
            hangup.leave_terminal()
        for process in ranks:
            if process.is_alive():
                os.kill(process.pid or 0, number)

    heard = () if hangup.is_ignored() else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *heard)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
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
    # A session of its own: a terminal's Ctrl-C reaches the launcher alone, which forwards it once.
    # A rank that got it twice would take it for the second Ctrl-C, and end without saving.
    os.setsid()
    os.environ.update(environment)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        task(argument)
    except (KeyboardInterrupt, SystemExit):  # Lightning exits at a second signal
        sys.exit(INTERRUPTED)
    except Exception as error:
        # As text: not every exception can be pickled.
        reports.send((explain(error), traceback.format_exc()))
        sys.exit(1)


def _end_with_launcher() -> None:
    launcher = parent_process()
    assert launcher is not None
    launcher.join()
    # The launcher was killed. `sys.exit` would end this thread alone.
    os._exit(1)


def _account(process: SpawnProcess, ending: connection.Connection) -> str:
    """How a rank failed, in words; its traceback goes to stderr where it was no user's mistake."""
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
