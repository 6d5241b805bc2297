"""safetensors files: a module's state dict, written atomically and loaded strictly."""

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}")
    try:
        save_file(tensors, partial, metadata)
        partial.replace(path)
    except SafetensorError as error:
        # A full disk reaches us as an error of the library's own.
        raise OSError(f"{path} could not be written: {error}") from error


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
