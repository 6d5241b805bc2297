"""Noise-image pairs of the teacher's ODE, the data of DMD1's regression loss: memmaps in a folder.

noise.npy float16 [N, ...], images.npy uint8 or float16 [N, ...], labels.npy int64 [N], manifest.json.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dmd2.arrays import open_array
from dmd2.data.pixels import to_pixels
from dmd2.files import read_json, write_json

ARRAYS = ("noise", "images", "labels")


class PairWriter:
    """Writes pairs block by block; opened again on the same folder it goes on where it stopped.

    path         Folder of the store; made if missing.
    num_pairs    How many pairs the finished store holds.
    shape        Of one noise and of one image, e.g. (3, 64, 64).
    dtype        Of the stored images: "uint8" for pixels, "float16" for latents and points.
    fingerprint  What the pairs were made from (teacher, sampler, seed): pairs of two kinds never mix.

    `complete` is the number of pairs written so far.
    """

    def __init__(
        self, path: str | Path, num_pairs: int, shape: tuple[int, ...], dtype: str, fingerprint: str
    ) -> None:
        if dtype not in ("uint8", "float16"):
            raise ValueError(f"dtype of stored images must be uint8 or float16, got {dtype}")
        if num_pairs < 1:
            raise ValueError(f"num_pairs must be at least 1, got {num_pairs}; e.g. num_pairs=10000")
        self.path = Path(path)
        self._about: dict[str, Any] = {
            "num_pairs": num_pairs,
            "shape": list(shape),
            "dtype": dtype,
            "fingerprint": fingerprint,
        }
        if (self.path / "manifest.json").exists():
            self.complete = self._resume()
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            open_memmap(self.path / "noise.npy", "w+", np.float16, (num_pairs, *shape))
            open_memmap(self.path / "images.npy", "w+", np.dtype(dtype), (num_pairs, *shape))
            open_memmap(self.path / "labels.npy", "w+", np.int64, (num_pairs,))
            self._commit(0)
        self._noise, self._images, self._labels = (_open(self.path, name, "r+") for name in ARRAYS)

    def append(self, noise: Tensor, images: Tensor, labels: Tensor) -> None:
        """Add a block: unit noise [B, ...], images in model space [B, ...], labels [B].

        The noise is stored as float16: round it before the teacher sees it, or the pair is off by that.
        Raises ValueError where the block does not fit the store.
        """
        shape, room = tuple(self._about["shape"]), self._about["num_pairs"] - self.complete
        if tuple(noise.shape[1:]) != shape or images.shape != noise.shape or len(labels) != len(noise):
            raise ValueError(
                f"a block must be noise and images [B, {', '.join(map(str, shape))}] and labels [B], got "
                f"{list(noise.shape)}, {list(images.shape)} and {list(labels.shape)}"
            )
        if len(noise) > room:
            raise ValueError(f"the store {self.path} has room for {room} more pairs, got {len(noise)}")
        rows = slice(self.complete, self.complete + len(noise))
        stored = to_pixels(images) if self._about["dtype"] == "uint8" else images.to(torch.float16)
        self._noise[rows] = noise.to(torch.float16).cpu().numpy()
        self._images[rows] = stored.cpu().numpy()
        self._labels[rows] = labels.cpu().numpy()
        for array in (self._noise, self._images, self._labels):
            array.flush()
        self._commit(rows.stop)

    def _resume(self) -> int:
        manifest = _manifest(self.path)
        for key, value in self._about.items():
            if manifest[key] != value:
                raise ValueError(
                    f"the pairs in {self.path} have {key} {manifest[key]}, asked for {value}; "
                    "remove the folder or choose another one"
                )
        return manifest["complete"]

    def _commit(self, complete: int) -> None:
        """Count the pairs as written, after their bytes are; a crash in between loses the block alone."""
        write_json(self.path / "manifest.json", {**self._about, "complete": complete})
        self.complete = complete


class PairStore:
    """A finished store: `noise` float16 [N, ...], `images` uint8 or float16 [N, ...], `labels` int64 [N].

    Raises FileNotFoundError where there is no store, and ValueError where it is not finished.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        if not (folder / "manifest.json").exists():
            raise FileNotFoundError(f"no pairs in {folder}; give the folder that a PairWriter wrote")
        manifest = _manifest(folder)
        if manifest["complete"] < manifest["num_pairs"]:
            raise ValueError(
                f"the store {folder} holds {manifest['complete']} of {manifest['num_pairs']} pairs; "
                "start its generation again, it goes on where it stopped"
            )
        self.noise, self.images, self.labels = (_open(folder, name, "r") for name in ARRAYS)
        self.shape: tuple[int, ...] = tuple(manifest["shape"])
        self.fingerprint: str = manifest["fingerprint"]

    def __len__(self) -> int:
        return len(self.labels)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    return manifest


def _open(folder: Path, name: str, mode: Literal["r", "r+"]) -> np.memmap:
    return open_array(folder / f"{name}.npy", mode)
