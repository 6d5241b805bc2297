"""Images as a viewer shows them: upright, sRGB, over a background; of known formats alone."""

import io
from contextlib import suppress
from functools import cache
from pathlib import PurePosixPath

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dmd2.data.preparation import colour_profile

# PIL reads more, and some of that is handed to other programs: Ghostscript runs what is in an EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are opened, whatever a file's name says; for `formats` of `Image.open`."""

Turn = Image.Transpose
# EXIF 2.32, table 6: how the stored image is turned to be upright.
UPRIGHT = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
LYING = (Turn.TRANSPOSE, Turn.ROTATE_270, Turn.TRANSVERSE, Turn.ROTATE_90)
"""Those of an image whose stored height is the width that is shown."""


def open_picture(data: bytes) -> Image.Image:
    """The image in the bytes of a file, not yet decoded; raises what PIL raises, and ValueError for
    bytes of none of the formats.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # its words name an object in memory
        raise ValueError(f"it is no {', '.join(FORMATS)}") from error


def as_shown(image: Image.Image, mode: str, background: str) -> Image.Image:
    """An image as a viewer shows it, in `mode` "RGB" or "L".

    Of several frames the first is shown. Raises ValueError for 32 bits a pixel.
    """
    image.load()  # open_picture reads the header alone: here a truncated file shows
    turned = _upright(image)
    # 16 bits of grey, which some versions of PIL hold as integers of 32. PIL's own conversion of
    # them clips at 255 instead of scaling.
    if image.mode.startswith("I;16") or (image.mode, image.format) in SIXTEEN_BITS:
        turned = _by_high_byte(turned)
    if turned.mode in ("I", "F"):
        # Integers or floats of e.g. TIFF, in the range of some instrument.
        raise ValueError("32 bits a pixel have no known range")
    if "icc_profile" in image.info:
        turned = colour_profile.in_srgb(turned, image.info["icc_profile"])
    if _has_alpha(turned):
        # The pixels behind full transparency are arbitrary: nobody ever saw them.
        below = Image.new("RGBA", turned.size, background)
        turned = Image.alpha_composite(below, turned.convert("RGBA")).convert("RGB")
    # Grey is ITU-R 601-2 luma, PIL's default.
    return turned.convert(mode)


SIXTEEN_BITS = {("I", "PNG"), ("I", "PPM")}


def _by_high_byte(image: Image.Image) -> Image.Image:
    """16 bits of grey in 8, "L"; or "LA" where one level of them is transparent."""
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if (clear := image.info.get("transparency")) is None:
        return grey
    alpha = np.where(levels == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def shown_size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels of an image as a viewer shows it; raises what PIL raises.

    Where it can be, from the headers alone.
    """
    with open_picture(data) as image:
        # PIL says the turned size of a TIFF, and how it has to be turned, until it is loaded.
        if image.format == "TIFF":
            image.load()
        lies = _turn(image) in LYING
        return (image.width, image.height) if lies else (image.height, image.width)


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Turn | None:
    orientation = None
    # Viewers show an image whose EXIF is damaged, as it is stored; PIL raises nearly anything.
    with suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _has_alpha(image: Image.Image) -> bool:
    # A palette, or one colour of a PNG or GIF, may be transparent without a channel.
    return bool({"A", "a"} & set(image.getbands())) or "transparency" in image.info


def kind(data: bytes) -> str:
    """Format and mode of an image file, e.g. "JPEG CMYK", and what is odd; reads only headers."""
    with open_picture(data) as image:
        # Of a GIF, WebP, PNG or TIFF with several; most formats know only one.
        several = "the first of several frames" if getattr(image, "is_animated", False) else ""
        odd = "; ".join(filter(None, (several, colour_profile.words(image))))
        return f"{image.format} {image.mode}" + (f" ({odd})" if odd else "")


def is_image(name: str) -> bool:
    """Whether a file's suffix is of one of the formats, and the file is not hidden."""
    path = PurePosixPath(name)
    # macOS adds __MACOSX/ with a ._ twin of each image, which is none.
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in _suffixes() and not hidden


@cache
def _suffixes() -> frozenset[str]:
    # PIL loads its plugins lazily: before init() it knows few suffixes.
    Image.init()
    registered = Image.registered_extensions().items()
    return frozenset(suffix for suffix, format_ in registered if format_ in FORMATS)
