"""Decoder: from the bytes of an image file to pixels [C, H, W] of one size, cropped and resized."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor
from PIL.Image import Resampling

from dmd2.data.preparation.picture import as_shown, open_picture
from dmd2.data.sizes import size_of

RESIZES = (*(filter_.name.lower() for filter_ in Resampling), "adm")
CROPS = ("center", "none")


@dataclass(frozen=True)
class Decoder:
    """Decodes, crops and resizes every image in the same way.

    resolution  Height and width in pixels; one number is that of a square.
    resize      A filter of PIL ("lanczos", "box", "bicubic", ...); or "adm": halved by box while at
                least twice too large, then bicubic, as ADM's ImageNet was made (Dhariwal & Nichol
                2021).
    crop        "center" keeps the middle, the largest part of the size's shape; "none" squashes
                both sides. The image is cropped before it is resized, as EDM does with "lanczos"
                (Karras et al. 2022); with "adm" it is cropped after, since its authors resize the
                short side first.
    channels    3 for colour, 1 for grey.
    background  The colour behind transparent pixels, e.g. "white" or "#808080".

    Images are as a viewer shows them (`picture.as_shown`): turned upright as their EXIF says, from
    the colours of their ICC profile to sRGB, of several frames the first, 16-bit grey by its high
    byte. One of the right size that is in sRGB keeps its pixels.
    Raises ValueError for options that make no sense.
    """

    # These fields are in the keys of caches and in manifests, by name.

    resolution: int | Sequence[int]
    resize: str = "lanczos"
    crop: str = "center"
    channels: int = 3
    background: str = "white"

    def __post_init__(self) -> None:
        if isinstance(self.resolution, int) and self.resolution < 1:
            raise ValueError(
                f"resolution must be at least 1, got {self.resolution}; e.g. data.resolution=64"
            )
        _ = self.size  # or its error
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {self.resize}")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be center or none, got {self.crop}; e.g. data.crop=center")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}; e.g. data.channels=3")
        try:
            ImageColor.getrgb(self.background)
        except (ValueError, TypeError) as error:  # TypeError: it is no text
            raise ValueError(
                f"background must be a colour, got {self.background}; e.g. data.background=white"
            ) from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        side = self.resolution
        return (side, side) if isinstance(side, int) else size_of(side)

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        """Pixels uint8 [C, H, W]; raises ValueError with `name` where the bytes are no image."""
        try:
            with open_picture(data) as image:
                shown = as_shown(image, "RGB" if self.channels == 3 else "L", self.background)
            pixels = np.asarray(self._fit(shown))
        except Exception as error:  # PIL's decoders raise nearly anything at damaged bytes
            raise ValueError(
                f"cannot read the image {name} ({error}); mend or remove it"
            ) from error
        return pixels.reshape(*self.size, self.channels).transpose(2, 0, 1)

    def _fit(self, image: Image.Image) -> Image.Image:
        if self.resize == "adm":
            return self._fit_as_adm(image)
        height, width = self.size
        # Cropped first, so that the filter takes in nothing from beyond the part that is kept.
        if self.crop == "center":
            scale = min(image.width / width, image.height / height)
            image = _middle(image, max(round(width * scale), 1), max(round(height * scale), 1))
        same = image.size == (width, height)
        return image if same else image.resize((width, height), Resampling[self.resize.upper()])

    def _fit_as_adm(self, image: Image.Image) -> Image.Image:
        # openai/guided-diffusion, center_crop_arr of image_datasets.py, step by step.
        height, width = self.size
        while image.width >= 2 * width and image.height >= 2 * height:
            image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
        covering = width, height
        if self.crop == "center":
            scale = max(width / image.width, height / image.height)
            covering = round(image.width * scale), round(image.height * scale)
        if image.size != covering:
            image = image.resize(covering, Resampling.BICUBIC)
        return _middle(image, width, height)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    # An odd pixel too many goes at the right or at the bottom.
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
