"""Noise-image pairs of the teacher's ODE, the data of DMD1's regression loss: memmaps in a folder.

noise.npy float16 [N, ...], images.npy uint8 or float16 [N, ...], labels.npy int64 [N],
manifest.json; and, until it is finished, which blocks are there (`dmd2.data.preparation.blocks`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dmd2.data.pixels import to_pixels
from dmd2.data.preparation.blocks import Progress
from dmd2.io.arrays import open_array, write_rows
from dmd2.io.files import discard, key_of, locked, read_json, write_json

ARRAYS = ("noise", "images", "labels")


class PairWriter:
    """Writes pairs in blocks, which any processes share; opened again on the same folder it goes on
    where it was.

    path         Folder of the store; made if missing.
    num_pairs    How many pairs the finished store holds.
    shape        Of one noise and of one image, e.g. (3, 64, 64).
    dtype        Of the stored images: "uint8" for pixels, "float16" for latents and points.
    fingerprint  What the pairs were made from (teacher, sampler, seed): pairs of two kinds never
                 mix.
    at_once      Pairs a block.
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
        self._about: dict[str, Any] = {
            "num_pairs": num_pairs,
            "shape": list(shape),
            "dtype": dtype,
            "fingerprint": fingerprint,
        }
        self._progress: Progress | None = None
        with locked(self.path):
            if not self._is_finished():
                plan = key_of(self._about)
                self._progress = Progress(
                    self.path / "progress", plan, num_pairs, at_once, self._begin
                )

    def free(self) -> Iterator[range]:
        """The pairs to write, block by block: those that nobody else has taken. At the end all are
        written.
        """
        return iter(()) if self._progress is None else self._progress.free()

    def write(self, rows: range, noise: Tensor, images: Tensor, labels: Tensor) -> None:
        """Write a block: unit noise [B, ...], images in model space [B, ...], labels [B].

        The noise is stored as float16: round it before the teacher sees it, or the pair is off by
        that.
        Raises ValueError where the block does not fit.
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
        stored = to_pixels(images) if self._about["dtype"] == "uint8" else images.to(torch.float16)
        block = (noise.to(torch.float16), stored, labels.to(torch.int64))
        for name, x in zip(ARRAYS, block, strict=True):
            write_rows(self.path / f"{name}.npy", rows, x.cpu().numpy())
        assert self._progress is not None
        self._progress.record(rows, {})

    def num_written(self) -> int:
        """How many pairs are there, by whomever."""
        return self._about["num_pairs"] if self._progress is None else self._progress.num_done()

    def finish(self) -> None:
        """Say that all pairs are there, where nobody has."""
        with locked(self.path):
            if not self._is_finished():
                assert self._progress is not None and self._progress.is_complete()
                self._say(finished=True)
            discard(self.path / "progress")

    def _is_finished(self) -> bool:
        """Whether the store is; raises ValueError where it is one of other pairs."""
        if not (self.path / "manifest.json").exists():
            return False
        manifest = _manifest(self.path)
        for key, value in self._about.items():
            if manifest[key] != value:
                raise ValueError(
                    f"the pairs in {self.path} have {key} {manifest[key]}, asked for {value}; "
                    "remove the folder or choose another one"
                )
        return manifest["finished"]

    def _begin(self) -> None:
        num_pairs, dtype = self._about["num_pairs"], np.dtype(self._about["dtype"])
        self.path.mkdir(parents=True, exist_ok=True)
        open_memmap(self.path / "noise.npy", "w+", np.float16, (num_pairs, *self.shape))
        open_memmap(self.path / "images.npy", "w+", dtype, (num_pairs, *self.shape))
        open_memmap(self.path / "labels.npy", "w+", np.int64, (num_pairs,))
        self._say(finished=False)

    def _say(self, finished: bool) -> None:
        write_json(self.path / "manifest.json", {**self._about, "finished": finished})


class PairStore:
    """A finished store: `noise` float16 [N, ...], `images` uint8 or float16 [N, ...], `labels`
    int64 [N].

    Raises FileNotFoundError where there is no store, and ValueError where it is not finished.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        if not (folder / "manifest.json").exists():
            raise FileNotFoundError(
                f"no pairs in {folder}; give the folder that a PairWriter wrote"
            )
        manifest = _manifest(folder)
        if not manifest["finished"]:
            raise ValueError(
                f"the store {folder} is not finished; start its generation again, it goes on "
                "where it stopped"
            )
        self.noise, self.images, self.labels = (
            open_array(folder / f"{name}.npy") for name in ARRAYS
        )
        self.shape: tuple[int, ...] = tuple(manifest["shape"])
        self.fingerprint: str = manifest["fingerprint"]

    def __len__(self) -> int:
        return len(self.labels)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    return manifest
