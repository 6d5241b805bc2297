"""What a small teacher of a folder's images is made for: their size, colours and classes."""

from functools import cache
from pathlib import Path
from typing import Any

from dmd2.data.preparation.archives import members
from dmd2.data.preparation.folder import is_prepared, read_manifest
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.picture import open_picture

SIZES = range(16, 65)
"""Heights and widths in pixels of which a small teacher is trained here."""
STEP = 8
"""What divides them: the network halves an image twice, and its head once more."""


def facts_of(source: str, resolution: int | None = None) -> dict[str, Any]:
    """Of a source of `dmd2.data.Images`:

    resolution   Height and width of the images; where the source is not prepared, and none is
                 given, that of its first image, rounded down to a multiple of 8.
    channels     Colours: 3, or what the source was prepared with.
    num_classes  Number of classes; 0 where it has none.
    coarsest     Height and width of the network's coarsest level, a quarter.
    gan_weight   Weight of the generator's GAN loss: 1e-2 at 32x32, 3e-3 at 64x64 (DMD2), and 0.1 at
                 8x8 (this program's digits), by a power of the size.

    Where there is no such source it is 32 pixels in colour, without classes. Raises ValueError for
    images of another size.
    """
    path = Path(source)
    if not path.exists():
        # A config can then be shown; who opens the data says that it is not there.
        return _made_of(resolution or 32, 3, 0)
    return _facts(path.resolve(), resolution)


@cache  # asked for once a key of a config
def _facts(path: Path, resolution: int | None) -> dict[str, Any]:
    channels = 3
    if is_prepared(path):
        manifest = read_manifest(path)
        if "decoder" not in manifest:
            raise ValueError(f"{path} holds no images; name images of yours: data.source=DIR")
        size, channels = manifest["decoder"]["resolution"], manifest["decoder"]["channels"]
        class_names = manifest["class_names"]
    else:
        layout = lay_out(path, 0.0)
        class_names = layout.class_names
        size = resolution or _size(path, layout.train[0])
    if size not in SIZES or size % STEP:
        raise ValueError(
            f"the images of {path} are for {size} pixels, and a small teacher is for "
            f"{SIZES[0]} to {SIZES[-1]}, in steps of {STEP}; type data.resolution=64"
        )
    return _made_of(size, channels, len(class_names))


def _made_of(size: int, channels: int, num_classes: int) -> dict[str, Any]:
    return {
        "resolution": size,
        "channels": channels,
        "num_classes": num_classes,
        "coarsest": size // 4,
        "gan_weight": float(f"{1e-2 * (32 / size) ** 1.7:.2g}"),
    }


def _size(source: Path, name: str) -> int:
    """The shorter side of one image, rounded down to a multiple of `STEP`."""
    for member in members(source, {}):
        if member.name == name:
            try:
                with open_picture(member.read()) as image:
                    return min(image.size) // STEP * STEP
            except Exception as error:  # PIL raises nearly anything at damaged bytes
                raise ValueError(
                    f"cannot read the image {name} in {source} ({error}); mend or remove it"
                ) from error
    raise ValueError(f"{source} has no longer its image {name}; look into it")
