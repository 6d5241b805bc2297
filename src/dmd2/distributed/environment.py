"""Which rank a process is, as the environment says in torchrun's variables; torch is not loaded.

RANK, LOCAL_RANK and WORLD_SIZE say who it is, MASTER_ADDR and MASTER_PORT where the ranks meet.
"""

import os

ALONE = "where this is the only process, type first: unset WORLD_SIZE RANK"
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def started() -> bool:
    """Whether this process was started as one of several ranks.

    Raises ValueError where the environment's numbers make no sense.
    """
    return "RANK" in os.environ and number_of("WORLD_SIZE", 1, 1) > 1


def ranks() -> tuple[int, int]:
    """This process's rank and the number of ranks, as the environment says; 0 and 1 for one alone.

    Raises ValueError where its numbers make no sense.
    """
    if not started():
        return 0, 1
    own, num = number_of("RANK", 0), number_of("WORLD_SIZE", 1)
    if own >= num:
        raise ValueError(
            f"RANK={own} and WORLD_SIZE={num}: ranks are 0 to {num - 1}; set RANK to one of them, "
            f"or, {ALONE}"
        )
    return own, num


def local_rank() -> int:
    """This process's number on its machine, and so that of its GPU."""
    return number_of("LOCAL_RANK", 0)


def forget_ranks() -> None:
    """Make this process one alone, whatever a container or a job has set.

    Called before Lightning is imported, which reads these variables as well.
    """
    for name in NAMES:
        os.environ.pop(name, None)


def number_of(name: str, least: int, otherwise: int | None = None) -> int:
    """A whole number of the environment; `otherwise` where there is none, unless that is None."""
    text = os.environ.get(name, "")
    if not text and otherwise is not None:
        return otherwise
    text = text or text_of(name)
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(
            f"{name}={text} in the environment must be a whole number of at least {least}; "
            f"set it, or, {ALONE}"
        )
    return int(text)


def text_of(name: str) -> str:
    """A variable of the environment that several ranks need."""
    if not (text := os.environ.get(name, "").strip()):
        raise ValueError(
            f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ['WORLD_SIZE']} are set, and "
            f"{name} is not; start the ranks with torchrun, which sets it, or, {ALONE}"
        )
    return text
