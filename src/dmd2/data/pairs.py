"""Noise-image pairs, the data of DMD's regression loss (Yin et al. 2024, Eq. 9): write and read.

A pair is a noise z ~ N(0, I), a label, and the image that the teacher makes of them by solving its
probability flow ODE from z. The loss is the distance of the one-step generator's G(z) from that
image. Pairs are made once for a teacher and kept in a folder as memory-mapped arrays:

    noise.npy      float16 [N, ...]
    images.npy     uint8 [N, ...] for pixels, float16 [N, ...] for latents and points
    labels.npy     int64 [N]
    manifest.json  what was made, whether it is finished, and then hashes of the arrays
    progress/      until then, which blocks of pairs are written (`dmd2.data.preparation.blocks`)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dmd2.data.pixels import to_pixels
from dmd2.data.preparation.blocks import BlockQueue
from dmd2.io.arrays import open_array, write_rows
from dmd2.io.files import (
    discard,
    key_of,
    locked,
    name_in_errors,
    read_hashed_json,
    write_hashed_json,
)
from dmd2.io.replace import sweep_halves_of
from dmd2.io.vouched import check_changed, hashes_of

ARRAYS = ("noise", "images", "labels")
FILES = tuple(f"{name}.npy" for name in ARRAYS)


class PairWriter:
    """Writes the pairs of a folder block by block; processes may share the blocks, or go on later.

    path         The folder; made if missing.
    num_pairs    How many pairs the finished folder holds.
    shape        Of one noise and of one image, e.g. (3, 64, 64).
    dtype        Of the stored images: "uint8" for pixels, "float16" for latents and points.
    fingerprint  Hash of what the pairs are made from (teacher, solver, guidance).
    at_once      Pairs per block: made in one pass of the teacher, and lost together by a kill.

    Every process constructs one with the same arguments, and then:

        for rows in writer.free():
            writer.write(rows, noise, images, labels)
        writer.finish()

    Raises ValueError for a dtype or number that makes no sense, and where the folder holds pairs
    made from something else.
    """

    def __init__(
        self,
        path: str | Path,
        num_pairs: int,
        shape: tuple[int, ...],
        dtype: str,
        fingerprint: str,
        at_once: int,
    ) -> None:
        if dtype not in ("uint8", "float16"):
            raise ValueError(f"dtype of stored images must be uint8 or float16, got {dtype}")
        if num_pairs < 1:
            raise ValueError(f"num_pairs must be at least 1, got {num_pairs}; e.g. num_pairs=10000")
        self.path, self.shape = Path(path), tuple(shape)
        self._manifest: dict[str, Any] = {
            "num_pairs": num_pairs,
            "shape": list(shape),  # as JSON gives it back, to be compared
            "dtype": dtype,
            "fingerprint": fingerprint,
        }
        self._queue: BlockQueue | None = None  # stays None where all is finished already
        # Under the lock one process creates the arrays, and the others find them.
        with locked(self.path):
            sweep_halves_of(self.path / "manifest.json")  # which is written under this lock alone
            if not self._is_finished():
                plan = key_of(self._manifest)
                self._queue = BlockQueue(
                    self.path / "progress", plan, num_pairs, at_once, self._create
                )

    def free(self) -> Iterator[range]:
        """Blocks of rows to write that no other process has; when it ends, all are written.

        A block must be written before the next one is asked for.
        """
        return iter(()) if self._queue is None else self._queue.free()

    def write(self, rows: range, noise: Tensor, images: Tensor, labels: Tensor) -> None:
        """Write a block: noise [B, ...] ~ N(0, I), images in model space [B, ...], labels [B].

        Noise is stored as float16. Round it to that before the teacher sees it: otherwise the image
        belongs to another noise than the stored one. Raises ValueError for a block of another size.
        """
        expected = (len(rows), *self.shape)
        if (
            tuple(noise.shape) != expected
            or images.shape != noise.shape
            or len(labels) != len(rows)
        ):
            raise ValueError(
                f"a block must be noise and images {list(expected)} and labels [{len(rows)}], got "
                f"{list(noise.shape)}, {list(images.shape)} and {list(labels.shape)}"
            )
        # Latents and points have no range to be clamped to, pixels have.
        stored = (
            to_pixels(images) if self._manifest["dtype"] == "uint8" else images.to(torch.float16)
        )
        block = (noise.to(torch.float16), stored, labels.to(torch.int64))
        # Array by array to the disk, and only then recorded: a recorded block is complete.
        for name, x in zip(ARRAYS, block, strict=True):
            write_rows(self.path / f"{name}.npy", rows, x.cpu().numpy())
        assert self._queue is not None
        self._queue.record(rows, {})

    def num_written(self) -> int:
        """How many pairs are written, by all processes together."""
        return self._manifest["num_pairs"] if self._queue is None else self._queue.num_done()

    def finish(self) -> None:
        """Mark the folder as finished, unless another process has; call it after the last block."""
        with locked(self.path):
            if not self._is_finished():
                assert self._queue is not None and self._queue.is_complete()
                # Before the queue's folder goes: a kill in between leaves nothing to do again.
                self._write_manifest(finished=True, arrays=hashes_of(self.path, FILES))
            # Other processes that are still at it take a queue that is gone for done.
            discard(self.path / "progress")

    def _is_finished(self) -> bool:
        """Whether all pairs are there; raises ValueError where the folder is of other pairs."""
        if not (self.path / "manifest.json").exists():
            return False
        manifest = _read_manifest(self.path)
        # Value by value, not by the hash of all: the error then names the difference.
        for key, value in self._manifest.items():
            if manifest[key] != value:
                raise ValueError(
                    f"the pairs in {self.path} have {key} {manifest[key]}, asked for {value}; "
                    "remove the folder or choose another one"
                )
        return manifest["finished"]

    def _create(self) -> None:
        """Arrays of zeros in their final size, and a manifest that says they are not finished."""
        num_pairs, dtype = self._manifest["num_pairs"], np.dtype(self._manifest["dtype"])
        self.path.mkdir(parents=True, exist_ok=True)
        # Sparse files of zeros: blocks go to their rows in any order.
        with name_in_errors(self.path):
            open_memmap(self.path / "noise.npy", "w+", np.float16, (num_pairs, *self.shape))
            open_memmap(self.path / "images.npy", "w+", dtype, (num_pairs, *self.shape))
            open_memmap(self.path / "labels.npy", "w+", np.int64, (num_pairs,))
        # Readers then say that pairs are unfinished, rather than missing.
        self._write_manifest(finished=False)

    def _write_manifest(self, **state: Any) -> None:
        write_hashed_json(self.path / "manifest.json", {**self._manifest, **state})


class PairStore:
    """The pairs of a finished folder, memory-mapped and read-only.

    `noise` float16 [N, ...] and `images` uint8 or float16 [N, ...] have samples of `shape`, and
    `labels` is int64 [N]; `fingerprint` is what they were made from. Raises FileNotFoundError where
    there are no pairs in `path`, and ValueError where they are not finished, or were altered.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        if not (folder / "manifest.json").exists():
            raise FileNotFoundError(
                f"no pairs in {folder}; give the folder that a PairWriter wrote"
            )
        manifest = _read_manifest(folder)
        if not manifest["finished"]:
            raise ValueError(
                f"the store {folder} is not finished; start its generation again, it goes on "
                "where it stopped"
            )
        try:
            check_changed(folder, manifest["arrays"], folder / "manifest.json")
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error}; {_again(folder)}") from error
        # Mapped, not read: a pair of ImageNet at 64x64 takes 37 kB, and there are 100,000s of them.
        self.noise, self.images, self.labels = (
            open_array(folder / f"{name}.npy") for name in ARRAYS
        )
        self.shape: tuple[int, ...] = tuple(manifest["shape"])
        self.fingerprint: str = manifest["fingerprint"]

    def __len__(self) -> int:
        return len(self.labels)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = read_hashed_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {_again(folder)}") from error
    if not manifest.keys() >= {"num_pairs", "shape", "dtype", "fingerprint", "finished"}:
        raise ValueError(f"{path} is no manifest of pairs; name another folder")
    if manifest["finished"] and "arrays" not in manifest:
        raise ValueError(f"{path} is of an older version: it has no hashes; {_again(folder)}")
    return manifest


def _again(folder: Path) -> str:
    return f"remove {folder} and make the pairs again"
