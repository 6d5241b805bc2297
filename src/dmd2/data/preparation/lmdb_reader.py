"""Reader of the LMDB of raw pixels that DMD2's authors publish (tianweiy/DMD2), as if it were EDM's
zip: PPM images and a dataset.json.

Its keys are images_I_data (uint8 [C, H, W]) and labels_I_data (int64) for image I, and
images_shape and labels_shape, decimal numbers with blanks between.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.data.preparation.member import Member

MAX_SIDE = 16384  # pixels of height or width


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
            num, *shape = _shape(_value(values, "images_shape", source), source)
            # Compared before a name is made for each: the number may claim anything.
            if num > database.stat()["entries"]:
                raise ValueError(f"{source} claims {num:,} images and lacks most; fetch it again")
            # Of eight digits, so that names in sorted order are in that of the database.
            names = [f"{i:08d}.{'ppm' if shape[0] == 3 else 'pgm'}" for i in range(num)]
            yield Member("dataset.json", partial(_labels, values, names, source))
            for i, name in enumerate(names):
                yield Member(name, partial(_image, values, i, shape, source))
    except lmdb.Error as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error


def _shape(text: bytes, source: Path) -> list[int]:
    """N, C, H and W; raises ValueError for others."""
    with suppress(ValueError):
        shape = [int(number) for number in text.split()]
        if len(shape) == 4 and min(shape) > 0 and shape[1] in (1, 3) and max(shape[2:]) <= MAX_SIDE:
            return shape
    raise ValueError(
        f"images_shape in {source} is {text[:80]!r}; expected N, C (1 or 3), H and W, of no more "
        f"than {MAX_SIDE} pixels; fetch it again"
    )


def _label(data: bytes, i: int, source: Path) -> int:
    if len(data) != 8:
        raise ValueError(
            f"labels_{i}_data in {source} has {len(data)} bytes, not the 8 of an int64"
        )
    return int.from_bytes(data, "little", signed=True)


def _labels(values: Any, names: list[str], source: Path) -> bytes:
    """EDM's dataset.json: {"labels": [[name, class], ...]}."""
    labels = [
        [name, _label(_value(values, f"labels_{i}_data", source), i, source)]
        for i, name in enumerate(names)
    ]
    return json.dumps({"labels": labels}).encode()


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
