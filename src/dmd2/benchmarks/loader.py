"""Data loader throughput: images a second for one training process, by number of workers."""

import os
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from dmd2.data.base import DataModule
from dmd2.data.images import Images
from dmd2.data.split import Split
from dmd2.io.arrays import open_array

NUM_RANDOM, SHAPE = 20_000, (3, 64, 64)  # 246 MB: the page cache holds it


class RandomImages(DataModule):
    """Images uint8 of a shape and without content, in a memory-mapped file.

    folder  Where the file goes.
    shape   Of one sample, e.g. (3, 64, 64).
    num     Images.

    Takes the arguments of `DataModule` besides.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], num: int, **common: Any) -> None:
        super().__init__(**common)
        self.path, self.sample_shape, self.num = folder / "x.npy", shape, num

    def prepare_data(self) -> None:
        """Write the file, unless it is there."""
        if not self.path.exists():
            x = open_memmap(self.path, "w+", np.uint8, (self.num, *self.sample_shape))
            # Counting up, since a file of zeros may be stored as a hole and never be read.
            x.reshape(-1)[:] = np.arange(x.size, dtype=np.uint8)

    def load(self) -> tuple[Split, Split, list[str]]:
        """All images as either split, without classes."""
        split = Split(open_array(self.path), np.zeros(self.num, np.int64))
        return split, split, []


def loader(
    source: Path | None,
    batch_size: int,
    num_batches: int,
    num_repeats: int,
    num_workers: list[int],
    target: int,
) -> list[str]:
    """A table of rates [images/s] and their ratios to the first row's, and whether they suffice.

    source       A folder of `dmd2 prepare`; None takes random images.
    batch_size   Images a batch.
    num_batches  Batches that are timed, after the first one.
    num_repeats  Measurements of each row; their median is shown.
    num_workers  Numbers of worker processes, a row each; 0 loads in the training process.
    target       Images a second that training consumes.
    """
    with TemporaryDirectory() as folder:
        rates = {
            workers: median(
                _rate(_data(source, Path(folder), batch_size, workers), num_batches)
                for _ in range(num_repeats)
            )
            for workers in num_workers
        }
    # The best row decides: how many workers to take is the user's choice.
    first, best = rates[num_workers[0]], max(rates.values())
    lines = ["| workers | images/s | ratio |", "|---|---|---|"]
    lines += [
        f"| {workers} | {rate:,.0f} | {rate / first:.2f} |" for workers, rate in rates.items()
    ]
    verdict = "feeds" if best >= target else "does not feed"
    return [
        *lines,
        f"this host ({os.cpu_count()} cores) {verdict} {target:,} images/s: {best / target:.1f} "
        "times that",
    ]


def _data(source: Path | None, folder: Path, batch_size: int, num_workers: int) -> DataModule:
    # The seed only orders the images, which does not change how fast they are read.
    common: dict[str, Any] = {"batch_size": batch_size, "seed": 0, "num_workers": num_workers}
    data = (
        RandomImages(folder, SHAPE, NUM_RANDOM, **common)
        if source is None
        else Images(source, None, folder, **common)
    )
    data.prepare_data()
    data.setup()
    return data


def _rate(data: DataModule, num_batches: int) -> float:
    """Images a second once the first batch is there."""
    # The first batch waits for workers to start, which happens once in a run.
    batches = iter(data.train_dataloader())
    next(batches)
    start = perf_counter()
    num_images = sum(len(batch["real"]) for batch in islice(batches, num_batches))
    return num_images / (perf_counter() - start)
