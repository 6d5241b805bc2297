"""How a process that gathers batches behaves among its run's others."""

import os
import signal
import threading


def ignore_signals(worker: int) -> None:
    """Let only the run's main process end this one: Ctrl-C and Slurm's signals reach every process
    of a run.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, where nobody else sends SIGTERM
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
