"""Finish a preparation: labels, arrays without the rows of broken files, and the manifest.

Every step may be repeated: a process that is killed here is followed by one that starts over.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from dmd2.data.preparation.folder import write_manifest
from dmd2.data.preparation.layout import Layout
from dmd2.io.arrays import open_array

AT_ONCE = 256  # Rows copied at once, so that an array larger than memory passes through it.


def finish(
    layout: Layout, folder: Path, results: Sequence[dict[str, Any]], about: dict[str, Any]
) -> None:
    """Turn `folder`, whose arrays of samples are decoded, into a prepared folder.

    results  Of all blocks: the kinds of their images, and the names of their broken files.
    about    What the manifest says of the making.

    Raises ValueError where every image of the train split is broken.
    """
    kinds, broken = Counter[str](), list[str]()
    for result in results:
        kinds.update(result["kinds"])
        broken += result["broken"]
    # Which files are broken shows while decoding, so the arrays were made with a row for each.
    dropped = set(broken)
    for split, names in layout.splits.items():
        rows = [row for row, name in enumerate(names) if name not in dropped]
        keep_rows(folder / f"{split}.npy", rows, len(names))
        np.save(
            folder / f"{split}_labels.npy",
            np.array([layout.labels[names[row]] for row in rows], np.int64),
        )
    if dropped >= set(layout.train):
        raise ValueError(
            f"all {len(layout.train)} images to train on are broken, e.g. {layout.train[0]}"
        )
    # The manifest vouches for the arrays, so it comes last.
    report = {
        "kinds": dict(sorted(kinds.items())),
        "broken": broken,
        "passed_over": layout.passed_over,
    }
    write_manifest(folder, layout.class_names, {**about, **report})


def keep_rows(path: Path, rows: Sequence[int], num_rows: int) -> None:
    """Write an array of `num_rows` rows again with `rows` alone; one that was is left as it is."""
    x = open_array(path)
    # Already short: a process that was killed after this step had done it.
    if len(rows) == num_rows or len(x) == len(rows):
        return
    kept: np.memmap = open_memmap(
        path.with_suffix(".kept"), "w+", x.dtype, (len(rows), *x.shape[1:])
    )
    for start in range(0, len(rows), AT_ONCE):
        kept[start : start + AT_ONCE] = x[rows[start : start + AT_ONCE]]
    # Under another name first: a kill on the way leaves the long array.
    kept.flush()
    path.with_suffix(".kept").replace(path)
