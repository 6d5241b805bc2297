"""ICC colour profiles: an image that has one becomes sRGB, as a viewer shows it."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SAME = 3
"""The largest difference, of 255, of two profiles that are one: many write sRGB rounded."""
UNUSABLE = "an unusable colour profile, read as sRGB"
CONVERTED = "a colour profile, converted to sRGB"


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of 8 bits a channel in sRGB; the image itself where its profile says that it is.

    profile  Of ICC, as in the file; None is a damaged one. One that is broken, or of another kind
             of image, changes nothing.
    """
    try:
        transform = _transform(profile, _space(image))
    except ImageCms.PyCMSError:
        return image
    if transform is None:
        return image
    is_clear = bool({"A", "a"} & set(image.getbands())) or "transparency" in image.info
    # By RGBA, since a palette's transparency is lost in RGB.
    alpha = image.convert("RGBA").getchannel("A") if is_clear else None
    source = image.convert("RGBA") if image.mode in ("P", "PA") else image
    converted = transform.apply(source.convert(transform.input_mode))
    converted.info.pop("transparency", None)  # a colour of the old space
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def words(image: Image.Image) -> str:
    """What a report says of an image's profile; "" where it has none, or sRGB."""
    if "icc_profile" not in image.info:
        return ""
    try:
        transform = _transform(image.info["icc_profile"], _space(image))
    except ImageCms.PyCMSError:
        return UNUSABLE
    return "" if transform is None else CONVERTED


def _space(image: Image.Image) -> str:
    if image.mode == "CMYK":
        return "CMYK"
    return "GRAY" if image.mode[0] in "1LI" and image.mode != "LAB" else "RGB"


@lru_cache(maxsize=64)
def _transform(profile: bytes | None, space: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB, for images of a colour space by ICC's name.

    None where both are the same. Raises ImageCms.PyCMSError for a profile that is of no use.
    """
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        of_profile = own.profile.xcolor_space.strip()
    except (OSError, ValueError, TypeError) as error:
        raise ImageCms.PyCMSError(str(error)) from error
    # Grey images often carry a profile of RGB: their grey is R = G = B.
    if of_profile not in ({"GRAY", "RGB"} if space == "GRAY" else {space}):
        raise ImageCms.PyCMSError(f"the image is {space}, and its profile of {of_profile}")
    mode = "L" if of_profile == "GRAY" else of_profile
    # Perceptual, as browsers do; of a profile without tables for it, colorimetric.
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(own, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    if mode == "CMYK":
        return transform
    probe = Image.fromarray(_probe(mode))
    shown, stored = np.asarray(transform.apply(probe), int), np.asarray(probe.convert("RGB"), int)
    return None if abs(shown - stored).max() <= SAME else transform


def _probe(mode: str) -> np.ndarray:
    """Every sixteenth level of grey [1, 17], or of all three channels [17 * 17, 17, 3]."""
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    if mode == "L":
        return levels[None]
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(289, 17, 3)
