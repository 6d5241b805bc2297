"""A run's checkpoints: written whole or not at all, in a thread, verified before they are read.

`checkpoints/00001000.ckpt` lies beside `00001000.json`, its manifest: size, SHA-256 and what the
run was, with a hash of itself. The manifest comes first, so a checkpoint that has its name is
complete; one that differs from its manifest is damaged.
"""

import hashlib
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io import CheckpointIO
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_map

from dmd2.io.files import fsynced, read_hashed_json, refused, write_hashed_json
from dmd2.io.progress import hashed, reading
from dmd2.io.replace import replacing
from dmd2.io.tensors import reason_of
from dmd2.training.adamw_8bit import require_torchao

Manifest = dict[str, Any]


class Verified(NamedTuple):
    """A checkpoint that agrees with its manifest, as it was when it was looked at."""

    path: Path
    manifest: Manifest


class BackgroundIO(CheckpointIO):
    """Checkpoint IO plugin of Lightning: copies the state to host memory, writes it in a thread.

    `verified` is a checkpoint whose hash was compared already: it is read without another look.
    """

    def __init__(self, verified: Path | None = None) -> None:
        self._verified = verified
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Copy now, write later; `storage_options` are the manifest's entries.

        Raises OSError where the last checkpoint could not be written.
        """
        self.wait()
        # Training goes on and changes these tensors, so the thread gets copies of its own.
        held = tree_map(lambda x: on_host(x) if isinstance(x, Tensor) else x, checkpoint)
        self._pending = self._thread.submit(write, held, Path(path), storage_options or {})

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raises OSError where it could not be."""
        # Forgotten before its result is read: an error is raised once, not at every call.
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> Any:
        """A checkpoint's content, plain values and tensors; nothing in it is run."""
        return read(Path(path)) if Path(path) == self._verified else load(Path(path))

    def teardown(self) -> None:
        """End the thread; Lightning calls this at every end of a fit."""
        self._thread.shutdown()

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and its manifest."""
        remove(Path(path))


def on_host(tensor: Tensor) -> Tensor:
    """A copy in host memory; of a quantized tensor, of all that it is made of."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.detach().to("cpu", copy=True)
    # Quantized moments: torchao's own `to` copies nothing that is on the host already.
    names, context = tensor.__tensor_flatten__()
    inner = {name: on_host(getattr(tensor, name)) for name in names}
    copied: Tensor = type(tensor).__tensor_unflatten__(
        inner, context, tensor.size(), tensor.stride()
    )
    return copied


def write(checkpoint: Any, path: Path, manifest: Manifest) -> None:
    """Write a checkpoint and its manifest; the checkpoints that are there remain, whatever happens.

    Raises OSError that names the file where it could not be written; nothing is left of it then.
    """
    try:
        with replacing(path) as partial:
            with fsynced(partial) as file:
                torch.save(checkpoint, file)
            # One of this name is of an earlier attempt, which this run resumed from before it.
            path.unlink(missing_ok=True)
            with partial.open("rb") as file:  # without a bar: training goes on meanwhile
                found = hashlib.file_digest(file, "sha256").hexdigest()
            whole = manifest | {"size": partial.stat().st_size, "sha256": found}
            write_hashed_json(path.with_suffix(".json"), whole)
    except RuntimeError as error:  # of torch.save, which has words of its own for a full disk
        raise OSError(f"{path} could not be written: {reason_of(error)}") from error


def load(path: Path) -> Any:
    """A checkpoint's content, verified first; raises ValueError where it is damaged."""
    verify(path)
    return read(path)


def read(path: Path) -> Any:
    """A verified checkpoint's content, plain values and tensors; nothing in it is run.

    Raises ValueError where it asks for more than that.
    """
    try:
        # Importing torchao names its quantized moments to torch as tensors that are safe to read.
        if any(name.startswith("torchao.") for name in get_unsafe_globals_in_checkpoint(path)):
            require_torchao()
        with reading(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, LookupError, EOFError) as error:
        raise refused(path, reason_of(error)) from error


def verify(path: Path) -> Verified:
    """Compare a checkpoint with its manifest: size and SHA-256.

    Raises ValueError that says how they differ, FileNotFoundError where there is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; resume=auto takes the newest of the folder paths.run"
        )
    try:
        manifest: Manifest = read_hashed_json(path.with_suffix(".json"))
        size, expected = manifest["size"], manifest["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} has no readable manifest, so it cannot be trusted: {error}"
        ) from error
    if path.stat().st_size != size:
        raise ValueError(f"{path} is damaged: it has {path.stat().st_size} bytes of {size}")
    if hashed(path) != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {path.stem}.json")
    return Verified(path, manifest)


def newest(folder: Path) -> Verified | None:
    """The newest checkpoint in a folder that is whole, None where there are no files at all.

    Damaged ones after it are named on stderr. Raises ValueError where none is whole.
    """
    damaged: list[ValueError] = []
    # From the newest back: a run that was killed while writing has an older one that is whole.
    for path in reversed(list(saved(folder))):
        try:
            found = verify(path)
        except ValueError as error:
            damaged.append(error)
            continue
        for one in damaged:
            print(f"dmd2: {one}; going back to the one before", file=sys.stderr)
        return found
    if damaged:
        raise ValueError(f"no checkpoint of {len(damaged)} in {folder} is whole: {damaged[0]}")
    return None


def saved(folder: Path) -> Iterator[Path]:
    """The checkpoints in a folder, oldest first."""
    # Names are zero-padded iterations, so their order as text is their order in time.
    yield from sorted(path for path in folder.glob("*.ckpt") if path.stem.isdigit())


def forget_after(path: Path, folder: Path) -> None:
    """Remove the checkpoints in `folder` that are later than `path`, if it is one of them, and
    the manifests there whose checkpoints are gone.

    A run that goes on from `path` will make them again.
    """
    # A checkpoint of another run says nothing about this folder's.
    if path.resolve().parent == folder.resolve():
        for file in [*saved(folder), *folder.glob("*.json")]:
            checkpoint = file.with_suffix(".ckpt")
            # A kill between the two files of one leaves its manifest alone.
            if file.stem.isdigit() and (file.stem > path.stem or not checkpoint.is_file()):
                remove(checkpoint)


def remove(path: Path) -> None:
    """Remove a checkpoint, its manifest last."""
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
