"""Scan a pickle's opcodes before it is unpickled: an allowlist, and limits on memory.

`pickletools.genops` decodes a program without running it. What passes here is read by
`dmd2.weights.pickles`, whose allowlist of names is the second line of defence.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Iterator
from typing import Any, NoReturn

# The opcodes that EDM's files are made of; pickle knows two dozen more.
OPCODES = {
    # The program, and the memo that holds what is used again.
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "MEMOIZE",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    # Look up a name, call it, set its attributes: `_Reader.find_class` decides what they may reach.
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
    "NEWOBJ",
    "BUILD",
    # Plain values. No LONG4: nobody needs a number of up to 2 GB.
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "SHORT_BINBYTES",
    "BINBYTES",
    "BINBYTES8",
    # Containers. No LIST and DICT, which protocol 0 alone writes.
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
    "EMPTY_SET",
    "ADDITEMS",
}
# Inside a storage nothing is called; BINPERSID names its type and size.
STORAGE_OPCODES = OPCODES - {"STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"} | {"BINPERSID"}
MAX_OPCODES = 500_000  # ImageNet's network has some 55,000
# ImageNet's network has some 5,000; a key of more than 50,000 nested ones overflows C's stack,
# which ends the process.
MAX_TUPLES = 20_000
MAX_STORAGE_OPCODES = 100  # of all five pickles together


def refuse(name: str) -> NoReturn:
    """Raise ValueError for a name, "module.function", that is not allowed."""
    raise ValueError(f"it names {name[:100]!r}, which no network of EDM's needs")


def scan(stream: Any) -> None:
    """Raise ValueError for a pickle that is incomplete, has other opcodes, or would fill memory.

    stream  Of bytes, at the start of the pickle.
    """
    num_tuples = 0
    for i, (opcode, argument) in enumerate(_instructions(stream)):
        if opcode not in OPCODES:
            raise ValueError(f"it has the instruction {opcode}")
        num_tuples += opcode.startswith("TUPLE")
        if i > MAX_OPCODES or num_tuples > MAX_TUPLES:
            raise ValueError("it has more instructions than a network needs")
        # The memo is an array as long as the largest index, so one index could take all memory.
        # A program numbers its entries upwards: none is above the count of opcodes so far.
        if opcode.endswith("PUT") and argument > i:
            raise ValueError(f"it wants room for {argument} memos")


def scan_storage(data: bytes) -> None:
    """Raise ValueError for bytes that are not one storage in torch.save's older format.

    That is five small pickles (magic number, version, system, storage, keys), then the numbers:
    the default before torch 1.6, and to this day what a pickled storage is.
    """
    # Also refuses a zip archive and a tar, which torch.load would take: they may unpack to more.
    if not data.startswith(pickle.PROTO + b"\x02"):
        raise ValueError("a storage is not in the form that EDM's files have")
    stream, num_storages, num_opcodes = io.BytesIO(data), 0, 0
    for part in ("magic number", "version", "system", "storage", "keys"):
        for opcode, argument in _instructions(stream):
            num_opcodes += 1
            num_storages += opcode == "BINPERSID"
            # The only name in it is its type, e.g. "torch FloatStorage".
            if opcode == "GLOBAL" and not re.fullmatch(r"torch \w+Storage", argument):
                refuse(argument.replace(" ", "."))
            if (
                opcode not in STORAGE_OPCODES
                or num_opcodes > MAX_STORAGE_OPCODES
                or num_storages > 1
            ):
                raise ValueError(f"a storage is more than numbers: instruction {opcode}")
            # torch allocates as many numbers as the pickle claims before it reads them.
            if part == "storage" and isinstance(argument, int) and argument > len(data):
                raise ValueError(f"a storage of {len(data)} bytes claims {argument} numbers")


def _instructions(stream: Any) -> Iterator[tuple[str, Any]]:
    """The opcodes of the next pickle in a stream, by name, with their arguments."""
    for opcode, argument, _ in pickletools.genops(stream):
        yield opcode.name, argument
