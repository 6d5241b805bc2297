"""Images of a folder, a zip or a tar at one resolution, decoded once into a memory-mapped cache."""

from functools import cached_property
from pathlib import Path
from typing import Any

from dmd2.data.base import DataModule
from dmd2.data.cache import cache_key, decode_once, open_cached
from dmd2.data.decode import Decoder
from dmd2.data.split import Split


class Images(DataModule):
    """Images uint8 [C, H, W], with classes where the source has them.

    source         A folder of class folders; a .zip, .tar or .tar.gz/.xz/.zst of one; or EDM's zip with a
                   dataset.json. With train/ and test/ (or val/) at the top level these are the splits.
    resolution     Height and width in pixels.
    cache          Folder for decoded data; one source with one set of options is decoded there once.
    resize         A filter of PIL ("lanczos", "box", "bicubic", ...) or "adm", as ImageNet-64 was made.
    crop           "center" scales the short side and cuts the middle, "none" squashes both sides.
    channels       3 for colour, 1 for grey.
    test_fraction  Share of each class held out where the source has no test split; 0 leaves `test` empty.
    num_classes    Number of classes where the source shows only some of them, e.g. 1000; None counts them.

    Takes the arguments of `DataModule` besides. Raises FileNotFoundError where there is no source and
    ValueError where its contents or an option make no sense.
    """

    def __init__(
        self,
        source: str | Path,
        resolution: int,
        cache: str | Path,
        resize: str = "lanczos",
        crop: str = "center",
        channels: int = 3,
        test_fraction: float = 0.0,
        num_classes: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}; e.g. 0.1")
        self.source, self.cache = Path(source), Path(cache)
        self.decoder = Decoder(resolution, resize, crop, channels)
        self.test_fraction, self.least_classes = test_fraction, num_classes

    @cached_property
    def _key(self) -> str:
        return cache_key(self.source, self.decoder, self.test_fraction)

    def prepare_data(self) -> None:
        """Decode the source, if nobody has yet; safe when several processes do it at once."""
        decode_once(self.source, self.decoder, self.test_fraction, self.cache / self._key)

    def load(self) -> tuple[Split, Split, list[str]]:
        if not (self.cache / self._key).exists():
            raise FileNotFoundError(f"{self.source} is not decoded in {self.cache}; call prepare_data() first")
        train, test, class_names = open_cached(self.cache / self._key)
        if self.least_classes is not None:
            class_names = self._widened(class_names, self.least_classes)
        return train, test, class_names

    def identity(self) -> dict[str, Any]:
        return {"cache": self._key, "num_classes": self.least_classes}

    def _widened(self, class_names: list[str], num_classes: int) -> list[str]:
        """Room for the classes that the source does not show."""
        if len(class_names) > num_classes:
            raise ValueError(
                f"{self.source} has labels up to {len(class_names) - 1}, out of range for {num_classes} "
                f"classes; set data.num_classes={len(class_names)}"
            )
        return class_names + [str(i) for i in range(len(class_names), num_classes)]
