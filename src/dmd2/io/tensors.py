"""safetensors files: a module's state dict, written atomically and loaded strictly."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dmd2.io.files import OWN_HASH, locked
from dmd2.io.replace import replacing, unused_name


def save_weights(module: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a module's state dict; raises OSError where the file cannot be written."""
    tensors = {
        # safetensors refuses views with gaps, e.g. channels-last weights
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_tensors(tensors, path, metadata)


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write contiguous tensors that share no memory, and metadata, to `path`, atomically.

    Parent folders are made. Raises OSError where the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata)
            let_others_read(partial)
    except SafetensorError as error:
        # A full disk reaches us as an error of the library's own.
        raise OSError(f"{path} could not be written: {error}") from error


def let_others_read(path: Path) -> None:
    """Give a file the permissions that a new file gets here; safetensors lets its user alone read.

    A cache's teachers and a run's student are often another user's, too.
    """
    # The umask cannot be asked for without changing it for all threads, so a new file says it.
    new = unused_name(path)
    new.touch()
    path.chmod(new.stat().st_mode)
    new.unlink()


def save_hashed(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors with a hash of them and of the metadata, for what is trusted when read again.

    Raises OSError where the file cannot be written.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = dict(metadata or {})
    save_tensors(held, path, about | {OWN_HASH: _hash_of(held, about)})


def read_hashed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata that `save_hashed` wrote.

    Raises FileNotFoundError where there are none, and ValueError where they are damaged in any way.
    """
    tensors, metadata = read_tensors(path), read_metadata(path)
    if metadata.pop(OWN_HASH, None) != _hash_of(tensors, metadata):
        raise ValueError(f"{path} is damaged, or was not written by this version: its hash differs")
    return tensors, metadata


def cached(path: Path, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that are kept at `path`; made by one process where they are not there, or damaged.

    Others that want them meanwhile wait, and read them.
    """
    found = _read_cached(path)
    if found is None:
        with locked(path):
            # Asked again: another process may have made them while this one waited.
            if (found := _read_cached(path)) is None:
                save_hashed(make(), path)
                found = read_hashed(path)[0]
    return found


def _read_cached(path: Path) -> dict[str, Tensor] | None:
    try:
        return read_hashed(path)[0] if path.exists() else None
    except ValueError as error:
        print(f"dmd2: {error}; made again", file=sys.stderr)
        return None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        # As bytes, since NumPy has no bfloat16; flat, since a tensor without dimensions has no
        # view of another dtype.
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _hash_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    # Sorted, since a file keeps its tensors in an order of its own.
    names = sorted(tensors)
    kinds = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    content = [sorted(metadata.items()), kinds, digest({name: tensors[name] for name in names})]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def names_in(path: Path) -> list[str]:
    """The names of a file's tensors; raises ValueError where it is damaged."""
    with _opened(path) as file:
        return list(file.keys())


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata; empty where there is no file, or no metadata in it.

    Raises ValueError where it is damaged.
    """
    if not path.is_file():
        return {}
    with _opened(path) as file:
        return file.metadata() or {}  # the library gives None for none


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in host memory.

    Raises FileNotFoundError where there is none, and ValueError where it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights at {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file into a module; every name and shape must match.

    Raises FileNotFoundError where there is no file, and ValueError where it is damaged or is of
    another network.
    """
    tensors = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        # The first line names the class; the second has the first name or shape that differs, and
        # hundreds may follow.
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{path} holds another network's weights: {first}") from error
