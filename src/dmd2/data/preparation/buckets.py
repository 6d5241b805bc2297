"""Aspect buckets: each image goes to the size of the nearest shape, and is cropped to it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from dmd2.data.codec import Codec
from dmd2.data.preparation.archives import identity, members
from dmd2.data.preparation.bucket_folder import BUCKETS, is_begun, part_of, read_buckets
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.decode_blocks import Broken
from dmd2.data.preparation.encode import LatentEncoder
from dmd2.data.preparation.layout import Layout
from dmd2.data.preparation.picture import shown_size
from dmd2.data.preparation.prepare import check_place, prepare
from dmd2.data.sizes import Size, size_of, written
from dmd2.io.files import locked, write_hashed_json
from dmd2.io.progress import progress_bar

FAR = 0.25
"""An image is far from its bucket where the crop takes more than this share of it."""
UNKNOWN = (0, 0.0)
"""Bucket and share of a file that is no image: whoever decodes it says so, in any bucket."""


def checked_sizes(given: Sequence[Any] | None, decoder: Decoder, codec: Codec) -> list[Size]:
    """Heights and widths of the buckets; None is the decoder's size alone.

    Raises ValueError where one is no size, has no latents or the shape of another, where the
    decoder's size is none of them, and for several without a crop.
    """
    if given is None:
        return [decoder.size]
    sizes = [size_of(size) for size in given]
    for i, (height, width) in enumerate(sizes):
        codec.shape_at((height, width))
        for other in sizes[:i]:
            if height * other[1] == width * other[0]:
                raise ValueError(
                    f"recipe.buckets {written([other, (height, width)])} are of one shape, by "
                    "which images are told apart; leave one"
                )
    # Sample grids, scores and checks of a run's health compare with images of this size.
    if decoder.size not in sizes:
        raise ValueError(
            f"recipe.buckets {written(sizes)} lack the base size {written([decoder.size])}; add "
            "it, or type recipe.autoencoder.resolution=NUMBER"
        )
    if len(sizes) > 1 and decoder.crop != "center":
        raise ValueError(
            f"recipe.buckets are cropped to, got recipe.decoder.crop={decoder.crop}; type "
            "recipe.decoder.crop=center"
        )
    return sizes


def nearest(size: Size, buckets: Sequence[Size]) -> tuple[int, float]:
    """The number of the bucket of the nearest shape, by |log ratio| of the shapes; and the share
    of the image's area that a crop to this shape takes.

    >>> nearest((200, 100), [(64, 64), (96, 48)])
    (1, 0.0)
    >>> nearest((100, 80), [(64, 64), (96, 48)])
    (0, 0.2)
    """
    height, width = size
    # h / w of the image over that of the bucket.
    ratios = [height * bucket[1] / (width * bucket[0]) for bucket in buckets]
    kept = [min(ratio, 1 / ratio) for ratio in ratios]  # exp(-|log ratio|)
    best = max(range(len(buckets)), key=kept.__getitem__)  # the first of equals
    return best, round(1 - kept[best], 9)


def prepare_buckets(
    source: Path,
    layout: Layout,
    decoder: Decoder,
    folder: Path,
    broken: Broken,
    codec: Codec,
    options: Mapping[str, Any],
    sizes: Sequence[Size],
) -> None:
    """Encode the images of `layout` into a folder of buckets; others may share the work.

    layout   Of captioned images: a train split alone, each image a class.
    sizes    Heights and widths of the buckets.

    Other arguments are those of `prepare`, and so is what is raised; besides, ValueError for a
    bucket to which no image is nearest.
    """
    about = {
        "source": identity(source),
        "decoder": asdict(decoder),
        "autoencoder": codec.identity(),
        **options,
        "buckets": [list(size) for size in sizes],
    }
    with locked(folder):
        # Sorted by one process, which the others wait for; a kill before the end leaves nothing.
        if not is_begun(folder):
            check_place(source, folder)
            folder.mkdir(exist_ok=True)
            write_hashed_json(folder / BUCKETS, {**about, **sort_images(source, layout, sizes)})
        done = read_buckets(folder)
    if any(done[key] != value for key, value in about.items()):
        raise ValueError(
            f"{folder} was begun from other files or with other options; remove it, or take "
            "another place"
        )
    for i, size in enumerate(sizes):
        prepare(
            source,
            part_of_layout(layout, done["bucket"], i),
            replace(decoder, resolution=list(size)),
            part_of(folder, size),
            broken,
            LatentEncoder(codec, size),
            options,
        )


def sort_images(source: Path, layout: Layout, sizes: Sequence[Size]) -> dict[str, Any]:
    """For buckets.json: the bucket of each image of the train split, and how much is cropped.

    Raises ValueError for a bucket without images.
    """
    found = dict[str, tuple[int, float]]()
    with progress_bar(f"sizes in {source.name}", len(layout.train), unit=" images") as bar:
        for member in members(source):
            if member.name in layout.labels:
                found[member.name] = _bucket_of(member.read(), sizes)
                bar.update()
    # One that is gone again is noticed where it would be decoded.
    bucket, cropped = zip(*(found.get(name, UNKNOWN) for name in layout.train), strict=True)
    for i, (height, width) in enumerate(sizes):
        if i not in bucket:
            raise ValueError(
                f"none of {len(bucket)} images is nearest to the bucket [{height},{width}]; "
                "take it out of recipe.buckets"
            )
    worst = int(np.argmax(cropped))
    return {
        "bucket": list(bucket),
        "cropped": {
            "mean": float(np.mean(cropped)),
            "num_far": int(np.sum(np.array(cropped) > FAR)),
            "most": cropped[worst],
            "worst": layout.train[worst],
        },
    }


def _bucket_of(data: bytes, sizes: Sequence[Size]) -> tuple[int, float]:
    try:
        return nearest(shown_size(data), sizes)
    except Exception:  # PIL's decoders raise nearly anything at damaged bytes
        return UNKNOWN


def part_of_layout(layout: Layout, bucket: Sequence[int], number: int) -> Layout:
    """The layout of the images of one bucket, each a class of its own as in the whole.

    bucket  Of each image of the train split.
    """
    names = [name for name, i in zip(layout.train, bucket, strict=True) if i == number]
    captions = [layout.class_names[layout.labels[name]] for name in names]
    # What of the source has no row is said once.
    passed_over = {} if number else layout.passed_over
    return Layout(names, [], {name: i for i, name in enumerate(names)}, captions, passed_over)


def cropped_words(about: Mapping[str, Any]) -> list[str]:
    """Lines that say how much the crop takes, of what buckets.json says."""
    cropped, num = about["cropped"], len(about["bucket"])
    lines = [
        f"the crop to {len(about['buckets'])} buckets takes {cropped['mean']:.1%} of an image on "
        f"average, at most {cropped['most']:.1%} ({cropped['worst']})"
    ]
    if cropped["num_far"]:
        lines.append(
            f"far from all buckets, so that the crop takes more than {FAR:.0%}: "
            f"{cropped['num_far']} of {num} images"
        )
    return lines
