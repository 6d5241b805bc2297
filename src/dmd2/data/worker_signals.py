"""Data loader workers ignore signals that are meant for the main process.

Ctrl-C and Slurm's signals reach every process of a run. The main process answers them by finishing
its iteration and writing a checkpoint, for which it still needs its workers.
"""

import os
import signal
import threading


def ignore_signals(worker: int) -> None:
    """Worker init function: obey SIGTERM of the parent process alone, and no SIGINT, USR1, USR2."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, where nobody but the parent sends SIGTERM
        return
    # SIGTERM cannot just be ignored: it is how the DataLoader ends its workers. A handler is not
    # given its sender, sigwaitinfo is; for that the signal must be blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)  # sys.exit would end this thread alone

    # A daemon thread, which does not keep a worker alive that has ended otherwise.
    threading.Thread(target=listen, daemon=True).start()
