"""Reader of the LMDB of raw pixels that DMD2's authors publish (tianweiy/DMD2), as if it were EDM's
zip: PPM images and a dataset.json.

Its keys are images_I_data (uint8 [C, H, W]) and labels_I_data (int64) for image I, and
images_shape and labels_shape, decimal numbers with blanks between.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.data.preparation.member import Member


def lmdb_members(source: Path) -> Iterator[Member]:
    """dataset.json, and then the images in their order.

    Raises ValueError for a damaged database or a missing key, ImportError without `lmdb`.
    """
    try:
        import lmdb  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading an LMDB needs lmdb; type in the checkout: "
            "make install EXTRAS=dev,lmdb, or pip install '.[lmdb]'"
        ) from error
    try:
        # Without a lock file, since the folder may be read-only and nobody writes to it. Without
        # read-ahead, since keys lie sorted as text, images_10 before images_2, and are read by I.
        with (
            lmdb.open(str(source), readonly=True, lock=False, readahead=False) as database,
            database.begin() as values,
        ):
            num, *shape = map(int, _value(values, "images_shape", source).split())
            # Of eight digits, so that names in sorted order are in that of the database.
            names = [f"{i:08d}.{'ppm' if shape[0] == 3 else 'pgm'}" for i in range(num)]
            yield Member("dataset.json", partial(_labels, values, names, source))
            for i, name in enumerate(names):
                yield Member(name, partial(_image, values, i, shape, source))
    except lmdb.Error as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error


def _labels(values: Any, names: list[str], source: Path) -> bytes:
    """EDM's dataset.json: {"labels": [[name, class], ...]}."""
    labels = (
        np.frombuffer(_value(values, f"labels_{i}_data", source), np.int64)
        for i in range(len(names))
    )
    return json.dumps(
        {"labels": [[name, int(label[0])] for name, label in zip(names, labels, strict=True)]}
    ).encode()


def _image(values: Any, i: int, shape: list[int], source: Path) -> bytes:
    """Pixels [C, H, W] as a binary PPM, or PGM where C is 1."""
    channels, height, width = shape
    data = _value(values, f"images_{i}_data", source)
    # Checked here, since the error of reshape would not name the key.
    if len(data) != channels * height * width:
        raise ValueError(
            f"images_{i}_data in {source} has {len(data)} bytes, its shape is {shape}; fetch it "
            "again"
        )
    # A PPM is a line of text before the raw pixels: the image decoder of all other sources then
    # reads these too, and loses nothing.
    pixels = np.frombuffer(data, np.uint8).reshape(shape).transpose(1, 2, 0)
    return b"P%d %d %d 255\n" % (6 if channels == 3 else 5, width, height) + pixels.tobytes()


def _value(values: Any, key: str, source: Path) -> bytes:
    if (found := values.get(key.encode())) is None:
        raise ValueError(
            f"{source} lacks the key {key}; an LMDB holds images_0_data, images_shape and labels "
            "alike"
        )
    return found
