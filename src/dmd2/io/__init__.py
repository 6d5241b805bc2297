"""Our own files: written atomically, hashed, locked, and read without running anything in them.

Exported are the functions of `files`. `arrays` loads NumPy, `tensors` and `hub` load torch, so
they are imported by name: a Slurm job writes files before torch is loaded.
"""

from dmd2.io.files import (
    discard,
    fsynced,
    key_of,
    link_to,
    locked,
    name_in_errors,
    parse_json,
    read_hashed_json,
    read_json,
    try_lock,
    write_bytes,
    write_hashed_json,
    write_json,
)
from dmd2.io.replace import replacing, sweep

__all__ = [
    "discard",
    "fsynced",
    "key_of",
    "link_to",
    "locked",
    "name_in_errors",
    "parse_json",
    "read_hashed_json",
    "read_json",
    "replacing",
    "sweep",
    "try_lock",
    "write_bytes",
    "write_hashed_json",
    "write_json",
]
