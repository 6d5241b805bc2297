"""A restricted unpickler for the pickles in which EDM publishes its networks (NVlabs/edm).

A pickle is a program that names functions and calls them. Here each allowed name stands for an
inert class or function of this file, and any other name ends the reading. `opcodes` scans the
program before it starts.
"""

import io
import math
import mmap
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dmd2.io.files import refused
from dmd2.io.progress import bytes_bar
from dmd2.io.tensors import reason_of
from dmd2.weights.opcodes import refuse, scan, scan_storage


class _Sealed:
    """Base class of every object that a pickle can reach: its attributes cannot be set."""

    # BUILD calls `__setstate__` where there is one, and would else update `__dict__`, or set
    # attributes one by one. Without slots an instance of a subclass would have a `__dict__`.
    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"it sets attributes of {type(self).__name__}")


class Record(_Sealed):
    """An object of a pickle that is not constructed: the name of its class, and its content."""

    __slots__ = ("content", "kind")

    def __init__(self, kind: str, content: Any) -> None:
        self.kind, self.content = kind, content


class _Dict(dict[Any, Any], _Sealed):
    """An OrderedDict or EDM's EasyDict: begins empty, and SETITEMS fills it."""

    __slots__ = ()

    # No arguments: `dict(x)` would call methods of x.
    def __init__(self) -> None:
        super().__init__()


class _ModuleDict(Record):
    """torch.nn.ModuleDict: begins empty, and BUILD fills it."""

    __slots__ = ()

    # NEWOBJ calls `__new__` alone.
    def __new__(cls) -> "_ModuleDict":
        self = super().__new__(cls)
        self.kind, self.content = "ModuleDict", {}
        return self

    def __setstate__(self, state: object) -> None:
        self.content = state


class _DType(Record):
    """numpy.dtype: its letter and size, e.g. "f8", and from BUILD its byte order."""

    __slots__ = ()

    def __init__(self, code: str, *_: object) -> None:
        # Numbers alone: a dtype of objects ("O") would turn bytes into pointers.
        if not re.fullmatch("[biuf][1248]", code):
            raise ValueError(f"it holds a number of type {code[:20]!r}")
        super().__init__("dtype", code)

    def __setstate__(self, state: Any) -> None:
        self.content = {"<": "<", ">": ">", "|": "|"}[state[1]] + self.content[-2:]


class _Call(_Sealed):
    """A function that a pickle may call, but whose attributes (`__globals__`) it cannot reach."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _object(meta: dict[str, Any]) -> Record:
    """EDM's `persistent_class`: the source code in `meta` stays a string, and is not executed."""
    return Record(str(meta["class_name"]), meta["state"])


def _parameter(tensor: Record, *_: object) -> Record:
    return tensor


def _tensor(
    storage: Record, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Record:
    # Exact ints: a str or a bool in `size` would multiply, too. `as_strided` refuses what reaches
    # beyond the storage, but a stride of 0 could claim any size.
    if not all(type(length) is int for length in size) or math.prod(size) > len(storage.content):
        raise ValueError("a tensor claims to be larger than its storage")
    return Record("Tensor", storage.content.as_strided(size, stride, offset))


def _scalar(dtype: _DType, data: bytes) -> int | float | bool:
    return np.frombuffer(data, dtype.content).item()


# The names in EDM's files, beside `torch.storage._load_from_bytes`, and what they stand for here.
ALLOWED = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Call(_object),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch.nn.modules.container", "ModuleDict"): _ModuleDict,
    ("collections", "OrderedDict"): _Dict,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy._core.multiarray", "scalar"): _Call(_scalar),  # NumPy 2's name
}


class _Reader(pickle.Unpickler):
    """Unpickles a file that `scan` has passed."""

    def __init__(self, stream: mmap.mmap, bar: "tqdm[Any]") -> None:
        super().__init__(stream)
        self._room, self._bar = len(stream), bar  # bytes of storages that it may still read

    # An exact pair is looked up and never an attribute of a module: "os.path" in `name` would
    # walk from an allowed module to any other.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _Call(self._storage)
        return ALLOWED.get((module, name)) or refuse(f"{module}.{name}")

    def _storage(self, data: bytes) -> Record:
        # The memo gives the same bytes as often as a program asks, each time as a new tensor.
        self._room -= len(data)
        if self._room < 0:
            raise ValueError("it reads the same storage again and again")
        scan_storage(data)
        self._bar.update(len(data))
        # torch's own restricted unpickler, behind the scan: what either refuses is refused.
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return Record("storage", torch.empty(0, dtype=storage.dtype).set_(storage))


def read_pickle(path: Path) -> Any:
    """The content of a pickle: plain values and containers, and a `Record` for every object.

    Raises ValueError where it is damaged, or asks for anything that EDM's files do not need.
    """
    try:
        # A mapped file never gives more bytes than it has; `file.read` would first allocate what
        # a length in the pickle asks for.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan(data)
            data.seek(0)
            with bytes_bar(f"reading {path.name}", len(data)) as bar:
                return _Reader(data, bar).load()
    except Exception as error:  # a hostile file can provoke any
        raise refused(path, reason_of(error)) from error
