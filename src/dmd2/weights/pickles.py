"""Reads the pickles that EDM publishes its networks in (NVlabs/edm), and runs nothing of what they
ask for.

A pickle is a program that names functions and calls them. Here a name stands for an inert piece of
this file, any other name ends the reading; `opcodes` looks the program through before it is
started.
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

from dmd2.weights.opcodes import refuse, scan, scan_storage


class _Sealed:
    """Base of all that a pickle gets into its hands: BUILD, which sets attributes of anything,
    finds it closed.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"it sets attributes of {type(self).__name__}")


class Record(_Sealed):
    """What a pickle says of an object: the name of its class and its content. It is never made into
    that object.
    """

    __slots__ = ("content", "kind")

    def __init__(self, kind: str, content: Any) -> None:
        self.kind, self.content = kind, content


class _Dict(dict[Any, Any], _Sealed):
    """An OrderedDict or EDM's EasyDict: begins empty, and SETITEMS fills it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()


class _ModuleDict(Record):
    """torch.nn.ModuleDict: begins empty, and BUILD fills it."""

    __slots__ = ()

    def __new__(cls) -> "_ModuleDict":
        self = super().__new__(cls)
        self.kind, self.content = "ModuleDict", {}
        return self

    def __setstate__(self, state: object) -> None:
        self.content = state


class _DType(Record):
    """numpy.dtype: its letter and size, and from BUILD its byte order."""

    __slots__ = ()

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch("[biuf][1248]", code):
            raise ValueError(f"it holds a number of type {code[:20]!r}")
        super().__init__("dtype", code)

    def __setstate__(self, state: Any) -> None:
        self.content = {"<": "<", ">": ">", "|": "|"}[state[1]] + self.content[-2:]


class _Call(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _object(meta: dict[str, Any]) -> Record:
    """EDM's `persistent_class`: the source code that comes with it stays a string."""
    return Record(str(meta["class_name"]), meta["state"])


def _parameter(tensor: Record, *_: object) -> Record:
    return tensor


def _tensor(
    storage: Record, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Record:
    if not all(type(length) is int for length in size) or math.prod(size) > len(storage.content):
        raise ValueError("a tensor claims to be larger than its storage")
    return Record("Tensor", storage.content.as_strided(size, stride, offset))


def _scalar(dtype: _DType, data: bytes) -> int | float | bool:
    return np.frombuffer(data, dtype.content).item()


ALLOWED = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Call(_object),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch.nn.modules.container", "ModuleDict"): _ModuleDict,
    ("collections", "OrderedDict"): _Dict,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy._core.multiarray", "scalar"): _Call(_scalar),
}
"""The names that these files hold beside `torch.storage._load_from_bytes`, and what they stand for
here.
"""


class _Reader(pickle.Unpickler):
    """Reads a file that `scan` has passed."""

    def __init__(self, stream: mmap.mmap) -> None:
        super().__init__(stream)
        self._room = len(stream)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _Call(self._storage)
        return ALLOWED.get((module, name)) or refuse(f"{module}.{name}")

    def _storage(self, data: bytes) -> Record:
        self._room -= len(data)
        if self._room < 0:
            raise ValueError("it reads the same storage again and again")
        scan_storage(data)
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return Record("storage", torch.empty(0, dtype=storage.dtype).set_(storage))


def read_pickle(path: Path) -> Any:
    """The content of a pickle: plain values and containers, and a `Record` for everything else.

    Raises ValueError where it is damaged or names anything else.
    """
    try:
        # A mapped file never gives more bytes than it has, however many a length asks for.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan(data)
            data.seek(0)
            return _Reader(data).load()
    except Exception as error:  # a hostile file can provoke any
        raise ValueError(f"{path} is refused, and nothing in it was run: {error}") from error
