"""safetensors files that carry a hash of their content: of what is kept and trusted again."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.files import OWN_HASH, locked
from dmd2.io.progress import bytes_bar
from dmd2.io.tensors import read_metadata, read_tensors, save_tensors


def save_hashed(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors with a hash of them and of the metadata, for what is trusted when read again.

    Raises OSError where the file cannot be written.
    """
    about = dict(metadata or {})
    save_tensors(tensors, path, about | {OWN_HASH: _hash_of(tensors, about)})


def read_hashed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata that `save_hashed` wrote.

    Raises FileNotFoundError where there are none, and ValueError where they are damaged in any way.
    """
    tensors, metadata = read_tensors(path), read_metadata(path)
    if metadata.pop(OWN_HASH, None) != _hash_of(tensors, metadata):
        raise ValueError(f"{path} is damaged, or was not written by this version: its hash differs")
    return tensors, metadata


def check_hash(path: Path) -> None:
    """Raise ValueError where a file says its hash and holds something else; others' say none."""
    if OWN_HASH in read_metadata(path):
        try:
            read_hashed(path)
        except ValueError as error:
            raise ValueError(f"{error}; copy it again, or remove it and make it again") from error


def cached(path: Path, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that are kept at `path`; made by one process where they are not there, or damaged.

    Others that want them meanwhile wait, and read them.
    """
    with suppress(FileNotFoundError, ValueError):
        return read_hashed(path)[0]
    with locked(path):
        # Asked again: another process may have made them while this one waited.
        try:
            return read_hashed(path)[0]
        except FileNotFoundError:
            pass
        except ValueError as error:
            print(f"dmd2: {error}; made again", file=sys.stderr)
        save_hashed(make(), path)
        return read_hashed(path)[0]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, in hexadecimal digits."""
    found = hashlib.sha256()
    with bytes_bar("hashing weights", sum(tensor.nbytes for tensor in tensors.values())) as bar:
        for name, tensor in tensors.items():
            found.update(name.encode())
            # As bytes, since NumPy has no bfloat16; flat, since a tensor without dimensions has no
            # view of another dtype.
            flat = tensor.detach().cpu().contiguous().flatten()
            found.update(flat.view(torch.uint8).numpy().data)
            bar.update(tensor.nbytes)
    return found.hexdigest()


def _hash_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    # Sorted, since a file keeps its tensors in an order of its own.
    names = sorted(tensors)
    kinds = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    content = [sorted(metadata.items()), kinds, digest({name: tensors[name] for name in names})]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
