"""Where the ranks of a run meet: a store that all of them reach.

A rank that does not come is named after `DMD2_JOIN_SECONDS`.
"""

import os
import socket
import time
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, TCPStore
from torch.distributed.constants import default_pg_timeout

from dmd2.distributed.environment import ALONE, number_of, ranks, text_of

JOIN_SECONDS = 50
"""How long the ranks wait for each other, where DMD2_JOIN_SECONDS says nothing else."""
POLL_SECONDS = 0.2


def meet() -> TCPStore:
    """The store through which the ranks find each other, once all of them have come.

    Raises ValueError that names those who have not after `DMD2_JOIN_SECONDS`.
    """
    own, num = ranks()
    port = number_of("MASTER_PORT", 1)
    if port > 65535:
        raise ValueError(f"MASTER_PORT={port} is no port; set a number up to 65535")
    host, seconds = text_of("MASTER_ADDR"), number_of("DMD2_JOIN_SECONDS", 1, JOIN_SECONDS)
    deadline = time.monotonic() + seconds
    # torchrun and `dmd2.distributed.launch` serve the store; else rank 0 does.
    serves = own == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not serves:
        _reach(host, port, own, num, deadline, seconds)
    try:
        store = TCPStore(
            # What rank 0 serves it reaches at once, whatever name the others have for it.
            "localhost" if serves else host,
            port,
            num,
            is_master=serves,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except (DistError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"rank {own} of {num} cannot {'serve' if serves else 'join'} the others at "
            f"{host}:{port} ({_reason(error)}); set another MASTER_PORT for all of them"
        ) from error
    store.set(f"rank {own} is here", "")
    _wait_for_all(store, own, num, deadline, seconds)
    store.set_timeout(default_pg_timeout)
    return store


def _wait_for_all(store: TCPStore, own: int, num: int, deadline: float, seconds: int) -> None:
    """Return when every rank has set its key; raises ValueError that names those who have not."""
    missing = [i for i in range(num) if i != own]
    while True:
        try:
            missing = [i for i in missing if not store.check([f"rank {i} is here"])]
        except (DistError, RuntimeError) as error:
            raise ValueError(
                f"rank {own} of {num} has lost rank 0, which ended: see what that one said"
            ) from error
        if not missing:
            return
        if time.monotonic() > deadline:
            raise ValueError(_absent(missing, own, num, seconds))
        time.sleep(POLL_SECONDS)


def _reach(host: str, port: int, own: int, num: int, deadline: float, seconds: int) -> None:
    """Return when somebody listens at a port; raises ValueError where nobody does in time."""
    while True:
        # Of a host that does not answer at all, a connection would wait for minutes.
        with suppress(OSError), socket.create_connection((host, port), timeout=5):
            return
        if time.monotonic() > deadline:
            where = f", and nobody listens at MASTER_ADDR:MASTER_PORT, {host}:{port}"
            raise ValueError(_absent([0], own, num, seconds, where))
        time.sleep(POLL_SECONDS)


def _absent(missing: list[int], own: int, num: int, seconds: int, where: str = "") -> str:
    """The message of one rank about those that it has waited for."""
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    return (
        f"rank {own} of {num} has waited {seconds} s for rank {shown} ({len(missing)} missing)"
        f"{where}; start every rank (DMD2_JOIN_SECONDS=600 waits longer), or, {ALONE}"
    )


def _reason(error: Exception) -> str:
    """The first sentence of torch's message, which goes on with a C++ stack."""
    return str(error).splitlines()[0].rstrip(". ")
