"""What `dmd2 prepare` can make: each recipe is a function of a source and a place, and says what it
did.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmd2.data.codec import Codec
from dmd2.data.preparation.captioned import captioned
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.encode import Encoded
from dmd2.data.preparation.folder import MANIFEST, check, is_prepared, open_prepared, read_manifest
from dmd2.data.preparation.layout import Layout, lay_out
from dmd2.data.preparation.prepare import Broken, prepare
from dmd2.distributed.process_group import rank

NUM_NAMED = 10  # Broken files that the report names; the manifest names all.


def images(
    source: Path,
    out: Path,
    decoder: Decoder,
    test_fraction: float,
    num_classes: int | None,
    broken: Broken,
) -> list[str]:
    """Labelled images at one size, for `data=images`; lines of a report.

    decoder        What is done to every image.
    test_fraction  Share of each class held out where the source has no test split.
    num_classes    Classes that the source must show, since labels count them; None takes what there
                   is.
    broken         Whether files that are no images "stop" it, or are left out and named ("skip").

    Where `out` is finished, its hashes are checked instead.
    """
    if is_prepared(out):
        return _checked(out, {"decoder": vars(decoder)})
    layout = lay_out(source, test_fraction)
    if num_classes is not None:
        _require(layout, num_classes, source)
    prepare(source, layout, decoder, out, broken)
    return report(out)


def latents(
    source: Path, out: Path, decoder: Decoder, autoencoder: Codec, caption: str, broken: Broken
) -> list[str]:
    """Latents of captioned images at one size, for `data=latents`; lines of a report.

    decoder      What is done to every image.
    autoencoder  What makes latents of it, on the GPU where there is one.
    caption      The name of an image's caption in JSON.
    broken       As of `images`.

    Where `out` is finished, its hashes are checked instead.
    """
    autoencoder.require()
    kept = Encoded(autoencoder)
    if is_prepared(out):
        return _checked(out, {"decoder": vars(decoder), **kept.about()})
    prepare(source, captioned(source, caption), decoder, out, broken, kept)
    return report(out)


def report(folder: Path) -> list[str]:
    """What a prepared folder holds, what its files were, and which were left out."""
    train, test, class_names = open_prepared(folder)
    manifest = read_manifest(folder)
    size = " x ".join(map(str, train.x.shape[1:]))
    what, labels = ("latents", "captions") if "autoencoder" in manifest else ("images", "classes")
    kinds = sorted(manifest["kinds"].items(), key=lambda item: -item[1])
    lines = [
        f"{len(train)} {what} to train on, {len(test)} to test, {size}, {len(class_names)} "
        f"{labels}: {folder}",
        "the files were " + ", ".join(f"{num} {kind}" for kind, num in kinds),
    ]
    if broken := manifest["broken"]:
        rest = (
            f" and {len(broken) - NUM_NAMED} more, all in {folder / MANIFEST}"
            if broken[NUM_NAMED:]
            else ""
        )
        lines.append(f"{len(broken)} broken, left out: {', '.join(broken[:NUM_NAMED])}{rest}")
    return lines


def _checked(out: Path, asked: Mapping[str, Any]) -> list[str]:
    """Lines on a finished folder; raises ValueError where it was made otherwise than `asked`, or
    was altered.
    """
    manifest = read_manifest(out)
    if any(manifest.get(key) != value for key, value in asked.items()):
        raise ValueError(
            f"{out} was prepared in another way than {asked}; remove it, or choose another out"
        )
    if rank() == 0:  # who tells the others' report, too
        check(out)
    return [f"{out} is finished, and what it holds is what its manifest says", *report(out)]


def _require(layout: Layout, num_classes: int, source: Path) -> None:
    if layout.class_names and len(layout.class_names) != num_classes:
        raise ValueError(
            f"{source} shows {len(layout.class_names)} classes, the recipe wants {num_classes}, "
            "and labels count "
            f"them; complete it, or type recipe.num_classes={len(layout.class_names)}"
        )
