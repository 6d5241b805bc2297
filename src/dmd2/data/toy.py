"""Two-dimensional toy data whose modes can be counted: ring, grid of Gaussians, checkerboard.

Each is scaled so that, with no mode dropped, each coordinate has mean 0 and variance 1:

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

STD = 0.1  # of a Gaussian mode, where none is asked for
NAMES = ("ring", "grid", "checkerboard")


class Toy2D(DataModule):
    """Points float32 [N, 2] of unit variance, unlabelled, spread evenly over the modes that are
    kept.

    name       "ring", "grid" or "checkerboard".
    num_train  Points to train on.
    num_test   Points to test on.
    drop       Numbers of the modes to leave out, in both splits: the data of a biased teacher.
    std        Standard deviation of a Gaussian mode, in (0, 1), default 0.1; None for the
               checkerboard, which has no choice.

    `modes` [K, 2] are the centres of all modes, with the dropped ones; `mode_std` is the standard
    deviation of each coordinate within a mode. Takes the arguments of `DataModule` besides. Raises
    ValueError for options that make no sense, and for `flip`.
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
        if num_train < 1 or num_test < 0:
            raise ValueError(
                f"num_train must be at least 1 and num_test at least 0, got {num_train} and "
                f"{num_test}; e.g. data.num_train=50000"
            )
        self.toy, self.num_train, self.num_test = name, num_train, num_test
        self.modes, self.mode_std = _modes(name, STD if std is None else std)
        # In one order, so that [3, 0] and [0, 3] have one identity.
        self.drop = sorted(set(drop))
        if not set(self.drop) < set(range(len(self.modes))):
            raise ValueError(
                f"drop must name some, not all, of the modes 0..{len(self.modes) - 1}, got "
                f"{list(drop)}; e.g. data.drop=[0,1]"
            )

    def to_model(self, x: Tensor) -> Tensor:
        """The points themselves, which are stored in model space."""
        return x

    def to_pixels(self, x: Tensor) -> Tensor:
        """The points themselves: metrics and plots of toys read coordinates."""
        return x

    def load(self) -> tuple[Split, Split, list[str]]:
        """Both splits, drawn anew each time and always the same, and no classes."""
        return self._points("train", self.num_train), self._points("test", self.num_test), []

    def identity(self) -> dict[str, Any]:
        """All options that the points depend on."""
        names = ("toy", "num_train", "num_test", "drop", "mode_std")
        return {name: getattr(self, name) for name in names}

    def _points(self, split: str, num: int) -> Split:
        """`num` points, of the modes in turn: all have the same share of any first points."""
        kept = np.delete(self.modes, self.drop, axis=0)
        # No seed of the run, so that a teacher serves runs of every seed.
        draw = generator("toy", self.toy, split)
        if self.toy == "checkerboard":
            # A uniform number on [0, 1) has variance 1/12: this one has variance 1.
            spread = (torch.rand(num, 2, generator=draw).numpy() - 0.5) * np.sqrt(12)
        else:
            spread = torch.randn(num, 2, generator=draw).numpy()
        # In turn and not at random: no mode is rare by chance.
        x = kept[np.arange(num) % len(kept)] + self.mode_std * spread
        return Split(x.astype(np.float32), np.zeros(num, np.int64))


def mode_centres(name: str) -> np.ndarray:
    """Centres [K, 2] of all modes of a toy with the default std, for the metric that counts modes.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"a toy is one of {', '.join(NAMES)}, got {name}; e.g. data=ring")
    return _modes(name, STD)[0]


def _modes(name: str, std: float) -> tuple[np.ndarray, float]:
    """Centres [K, 2] of the modes, and the standard deviation within one."""
    # On a circle of radius r a coordinate has variance r^2 / 2, to which the mode's std^2 is added.
    if name == "ring":
        angle = np.arange(8) * np.pi / 4
        return np.sqrt(2 * (1 - std**2)) * np.stack([np.cos(angle), np.sin(angle)], 1), std
    # The numbers -2, ..., 2 have variance 2.
    if name == "grid":
        return np.sqrt((1 - std**2) / 2) * _lattice(5), std
    # Each coordinate is uniform on [-sqrt(3), sqrt(3)], which has variance 1; a square is a quarter
    # as wide as the board.
    side, lattice = np.sqrt(3) / 2, _lattice(4)
    dark = (lattice - lattice.min()).sum(1) % 2 == 0
    return side * lattice[dark], float(side / np.sqrt(12))


def _lattice(num: int) -> np.ndarray:
    """The num x num points of spacing one around the origin, [num^2, 2]."""
    line = np.arange(num) - (num - 1) / 2
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
