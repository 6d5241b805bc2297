"""Toys in the plane, whose modes can be counted: a ring, a grid, a checkerboard.

Each is scaled so that, with no mode dropped, either coordinate has variance one:
    ring          8 Gaussians on a circle of radius sqrt(2 (1 - std^2)), the first at angle 0
    grid          25 Gaussians at {-2, ..., 2}^2 times sqrt((1 - std^2) / 2), row by row
    checkerboard  8 full squares of side sqrt(3) / 2, the dark ones of a 4x4 board
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmd2.data.base import DataModule
from dmd2.data.split import Split
from dmd2.randomness import generator

STD = 0.1
NAMES = ("ring", "grid", "checkerboard")


class Toy2D(DataModule):
    """Points float32 [N, 2] of unit variance, unlabelled, spread evenly over the modes that are
    kept.

    name       "ring", "grid" or "checkerboard".
    num_train  Points to train on.
    num_test   Points to test on.
    drop       Numbers of the modes to leave out, in both splits: the data of a biased teacher.
    std        Standard deviation of a Gaussian mode, default 0.1; the checkerboard has none to
               choose.

    `modes` [K, 2] are the centres of all modes, the dropped ones too; `mode_std` is the standard
    deviation
    of either coordinate within a mode. Takes the arguments of `DataModule` besides; `flip` is
    refused.
    """

    def __init__(
        self,
        name: str,
        num_train: int = 50_000,
        num_test: int = 10_000,
        drop: Sequence[int] = (),
        std: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if name not in NAMES:
            raise ValueError(
                f"name must be ring, grid or checkerboard, got {name}; e.g. data.name=ring"
            )
        if self.flip:
            raise ValueError(
                "points have no left and right to flip, got flip=True; set data.flip=false"
            )
        if name == "checkerboard" and std is not None:
            raise ValueError(f"the checkerboard has no std to choose, got {std}; set data.std=null")
        if std is not None and not 0 < std < 1:
            raise ValueError(f"std must be in (0, 1), got {std}; e.g. data.std=0.1")
        self.toy, self.num_train, self.num_test = name, num_train, num_test
        self.modes, self.mode_std = _modes(name, STD if std is None else std)
        self.drop = sorted(set(drop))
        if not set(self.drop) < set(range(len(self.modes))):
            raise ValueError(
                f"drop must name some, not all, of the modes 0..{len(self.modes) - 1}, got "
                f"{list(drop)}; "
                "e.g. data.drop=[0,1]"
            )

    def to_model(self, x: Tensor) -> Tensor:
        """Points are in model space already."""
        return x

    def to_pixels(self, x: Tensor) -> Tensor:
        """Points stay what they are."""
        return x

    def load(self) -> tuple[Split, Split, list[str]]:
        return self._points("train", self.num_train), self._points("test", self.num_test), []

    def identity(self) -> dict[str, Any]:
        names = ("toy", "num_train", "num_test", "drop", "mode_std")
        return {name: getattr(self, name) for name in names}

    def _points(self, split: str, num: int) -> Split:
        """Points that visit the modes in turn, so that each has its exact share of any first
        few.
        """
        kept = np.delete(self.modes, self.drop, axis=0)
        draw = generator("toy", self.toy, split)
        if self.toy == "checkerboard":
            spread = (torch.rand(num, 2, generator=draw).numpy() - 0.5) * np.sqrt(12)
        else:
            spread = torch.randn(num, 2, generator=draw).numpy()
        x = kept[np.arange(num) % len(kept)] + self.mode_std * spread
        return Split(x.astype(np.float32), np.zeros(num, np.int64))


def centres(name: str) -> np.ndarray:
    """Centres [K, 2] of all modes of a toy: for the metric that counts them."""
    if name not in NAMES:
        raise ValueError(f"a toy is one of {', '.join(NAMES)}, got {name}; e.g. data=ring")
    return _modes(name, STD)[0]


def _modes(name: str, std: float) -> tuple[np.ndarray, float]:
    """Centres [K, 2] of the modes, and the standard deviation within one."""
    if name == "ring":
        angle = np.arange(8) * np.pi / 4
        return np.sqrt(2 * (1 - std**2)) * np.stack([np.cos(angle), np.sin(angle)], 1), std
    if name == "grid":
        return np.sqrt((1 - std**2) / 2) * _lattice(5), std
    # Uniform on the board [-sqrt(3), sqrt(3)]^2, each coordinate; a square is a quarter as wide.
    side, lattice = np.sqrt(3) / 2, _lattice(4)
    dark = (lattice - lattice.min()).sum(1) % 2 == 0
    return side * lattice[dark], float(side / np.sqrt(12))


def _lattice(num: int) -> np.ndarray:
    """The num x num points of spacing one around the origin, [num^2, 2]."""
    line = np.arange(num) - (num - 1) / 2
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
