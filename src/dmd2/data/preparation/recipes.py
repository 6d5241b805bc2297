"""Recipes of `dmd2 prepare`: functions of a source and a folder that return a report.

A file of conf/recipe/ names one by its `_target_`, with its other arguments.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dmd2.data.captions import odd_captions
from dmd2.data.codec import Codec
from dmd2.data.preparation.archives import identity
from dmd2.data.preparation.bucket_folder import about_of, is_begun, parts_of, read_buckets
from dmd2.data.preparation.buckets import checked_sizes, cropped_words, prepare_buckets
from dmd2.data.preparation.captioned import captioned
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.decode_blocks import Broken
from dmd2.data.preparation.encode import LatentEncoder
from dmd2.data.preparation.folder import MANIFEST, check, is_prepared, open_prepared, read_manifest
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.passed_over import said
from dmd2.data.preparation.prepare import prepare
from dmd2.distributed.rank_zero import on_rank_zero

NUM_NAMED = 10  # broken files and classes that the report names; the manifest names all


def images(
    source: Path,
    out: Path,
    decoder: Decoder,
    test_fraction: float,
    num_classes: int | None,
    broken: Broken,
) -> list[str]:
    """Prepare labelled images of one size, for `data=images`; returns the lines of a report.

    source         Folder or archive of the images.
    out            Folder to make; if it is finished, its hashes are checked instead.
    decoder        From image files to pixels.
    test_fraction  Share of each class held out where the source has no test split.
    num_classes    How many classes the source must show; None takes those that are there.
    broken         "stop" ends at a file that is no image, "skip" leaves such files out.

    Raises ValueError where the source shows another number of classes: labels count the class
    folders in order, so one that is missing would shift the labels of all behind it. Raises
    ValueError, too, where `out` is finished and was made from another source or with other options.
    """
    options = {"test_fraction": test_fraction}
    if is_prepared(out):
        made_of = {"source": identity(source), "decoder": vars(decoder), **options}
        lines = _checked(out, made_of, broken)
        if num_classes is not None:
            _require(open_prepared(out)[2], num_classes, out)
        return lines
    layout = lay_out(source, test_fraction)
    if num_classes is not None:
        _require(layout.class_names, num_classes, source)
    prepare(source, layout, decoder, out, broken, options=options)
    return report(out)


def latents(
    source: Path,
    out: Path,
    decoder: Decoder,
    autoencoder: Codec,
    caption: str,
    broken: Broken,
    buckets: Sequence[Sequence[int]] | None = None,
) -> list[str]:
    """Prepare latents of captioned images, for `data=latents`; returns the lines of a report.

    source       Folder or archive of the images with their captions (`captioned`).
    out          Folder to make; if it is finished, its hashes are checked instead.
    decoder      From image files to pixels of the autoencoder's size.
    autoencoder  Encodes them, on the GPU where there is one.
    caption      The key of an image's caption in JSON.
    broken       As of `images`.
    buckets      Heights and widths in pixels, of which each image gets the one of the nearest
                 shape; None is the decoder's size alone.

    Raises FileNotFoundError without the autoencoder's files, and ValueError where `out` is finished
    and was made from another source or with other options, and for buckets that make no sense.
    """
    autoencoder.require()  # before the source is read, which may take an hour
    sizes, options = checked_sizes(buckets, decoder, autoencoder), {"caption": caption}
    if parts_of(out):
        asked = {
            "source": identity(source),
            "decoder": vars(decoder),
            "autoencoder": autoencoder.identity(),
            **options,
            "buckets": [list(size) for size in sizes] if len(sizes) > 1 else None,
        }
        return _checked(out, asked, broken)
    layout = captioned(source, caption)
    if len(sizes) > 1:
        prepare_buckets(source, layout, decoder, out, broken, autoencoder, options, sizes)
    else:
        encoder = LatentEncoder(autoencoder, decoder.size)
        prepare(source, layout, decoder, out, broken, encoder, options)
    return report(out)


def report(folder: Path) -> list[str]:
    """Lines that say what a finished folder holds, and which files were left out."""
    lines = cropped_words(read_buckets(folder)) if is_begun(folder) else []
    return lines + [line for part in parts_of(folder) for line in _holds(part)]


def _holds(folder: Path) -> list[str]:
    train, test, class_names = open_prepared(folder)
    manifest = read_manifest(folder)
    size = " x ".join(map(str, train.x.shape[1:]))
    # What a report calls things: only a manifest of latents has an autoencoder.
    what, labels = ("latents", "captions") if "autoencoder" in manifest else ("images", "classes")
    # The most frequent kind first.
    kinds = sorted(manifest["kinds"].items(), key=lambda item: -item[1])
    lines = [
        f"{len(train)} {what} to train on, {len(test)} to test, {size}, {len(class_names)} "
        f"{labels}: {folder}",
        "the files were " + ", ".join(f"{num} {kind}" for kind, num in kinds),
    ]
    if labels == "classes" and class_names:
        numbered = [f"{i} {name}" for i, name in enumerate(class_names)]
        lines.append(f"labels are {_first(numbered, folder)}")
    if labels == "captions" and (odd := odd_captions(class_names)):
        lines.append(odd)
    if line := said(manifest["passed_over"]):
        lines.append(line)
    if broken := manifest["broken"]:
        lines.append(f"{len(broken)} broken, left out: {_first(broken, folder)}")
    return lines


def _first(names: Sequence[str], folder: Path) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - NUM_NAMED
    rest = f" and {more} more, all in {folder / MANIFEST}" if more > 0 else ""
    return ", ".join(names[:NUM_NAMED]) + rest


def _checked(out: Path, asked: Mapping[str, Any], broken: Broken) -> list[str]:
    """The report on a finished folder, after a check of its hashes.

    Raises ValueError where it was altered, or its manifest differs from what is `asked` for.
    """
    about, parts = about_of(out), parts_of(out)
    for key, value in asked.items():
        # By get: a folder of pixels has no autoencoder to compare, one of one size no buckets.
        done = about.get(key)
        if _without_path(done) != _without_path(value):
            raise ValueError(
                f"{out} is finished and was made with {key} {done}, asked for {value}; remove it, "
                "or choose another out"
            )
    left_out = [name for part in parts for name in read_manifest(part)["broken"]]
    if broken == "stop" and left_out:
        raise ValueError(
            f"{out} is finished and was made with recipe.broken=skip, which left out "
            f"{len(left_out)} files, asked for stop; remove it, or choose another out"
        )
    # Rank 0 alone, whose report is printed: hashing takes as long as reading.
    for part in parts:
        on_rank_zero(partial(check, part))
    return [f"{out} is finished, and what it holds is what its manifest says", *report(out)]


def _without_path(value: Any) -> Any:
    # A source may have been moved: it is known by the names, sizes and times of its files.
    return {k: v for k, v in value.items() if k != "path"} if isinstance(value, dict) else value


def _require(class_names: Sequence[str], num_classes: int, source: Path) -> None:
    # A source without labels has no classes to count.
    if class_names and len(class_names) != num_classes:
        raise ValueError(
            f"{source} shows {len(class_names)} classes, the recipe wants {num_classes}, "
            "and labels count them; complete it, or type "
            f"recipe.num_classes={len(class_names)}"
        )
