"""Looks a pickle through before it is read: only instructions that a network needs, and room for
them in memory.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Iterator
from typing import Any, NoReturn

OPCODES = {
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "MEMOIZE",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
    "NEWOBJ",
    "BUILD",
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
"""The instructions that these files are made of; pickle knows two dozen more."""
STORAGE_OPCODES = OPCODES - {"STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"} | {"BINPERSID"}
MAX_OPCODES = 500_000  # ImageNet's network has some 55,000
# ImageNet's network has some 5,000; a key of more than 50,000 nested ones overflows C's stack
MAX_TUPLES = 20_000
MAX_STORAGE_OPCODES = 100


def refuse(name: str) -> NoReturn:
    """Raise ValueError for a name that is not allowed."""
    raise ValueError(f"it names {name[:100]!r}, which no network of EDM's needs")


def scan(stream: Any) -> None:
    """Raise ValueError for a program that is cut off, has an instruction off the list, or would
    fill the memory.
    """
    num_tuples = 0
    for i, (opcode, argument) in enumerate(_instructions(stream)):
        if opcode not in OPCODES:
            raise ValueError(f"it has the instruction {opcode}")
        num_tuples += opcode.startswith("TUPLE")
        if i > MAX_OPCODES or num_tuples > MAX_TUPLES:
            raise ValueError("it has more instructions than a network needs")
        if opcode.endswith("PUT") and argument > i:
            raise ValueError(f"it wants room for {argument} memos")


def scan_storage(data: bytes) -> None:
    """Raise ValueError for what is not one storage as torch.save once wrote it: five small pickles,
    then numbers.
    """
    if not data.startswith(pickle.PROTO + b"\x02"):
        raise ValueError("a storage is not in the form that EDM's files have")
    stream, num_storages, num_opcodes = io.BytesIO(data), 0, 0
    for part in ("magic number", "version", "system", "storage", "keys"):
        for opcode, argument in _instructions(stream):
            num_opcodes += 1
            num_storages += opcode == "BINPERSID"
            if opcode == "GLOBAL" and not re.fullmatch(r"torch \w+Storage", argument):
                refuse(argument.replace(" ", "."))
            if (
                opcode not in STORAGE_OPCODES
                or num_opcodes > MAX_STORAGE_OPCODES
                or num_storages > 1
            ):
                raise ValueError(f"a storage is more than numbers: instruction {opcode}")
            if part == "storage" and isinstance(argument, int) and argument > len(data):
                raise ValueError(f"a storage of {len(data)} bytes claims {argument} numbers")


def _instructions(stream: Any) -> Iterator[tuple[str, Any]]:
    """The instructions of the next pickle in a stream, with their arguments."""
    for opcode, argument, _ in pickletools.genops(stream):
        yield opcode.name, argument
