"""Image data set from a folder, zip, tar or LMDB: decoded once to one size, then memory-mapped."""

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from dmd2.data.base import DataModule
from dmd2.data.preparation.archives import identity
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder import check_if_changed, is_prepared, open_prepared, read_manifest
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.passed_over import said
from dmd2.data.preparation.prepare import FORMAT, prepare
from dmd2.data.split import Split
from dmd2.distributed.rank_zero import warn
from dmd2.io.files import key_of


class Images(DataModule):
    """Images uint8 [C, H, W], with classes where the source has them.

    source         A folder that `dmd2 prepare` wrote, which is opened as it is; a folder of class
                   folders; a .zip, .tar or .tar.gz/.xz/.zst of one; EDM's zip with a dataset.json;
                   or the LMDB of DMD2's authors. Folders train/ and test/ (or val/) at its top
                   level are the splits.
    resolution     Height and width in pixels.
    cache          Folder for decoded data; one source with one set of options is decoded once.
    resize         As of `Decoder`.
    crop           As of `Decoder`.
    channels       As of `Decoder`.
    background     As of `Decoder`.
    test_fraction  Share of each class held out where the source has no test split, in [0, 1); with
                   0 the test split is empty.
    num_classes    Number of classes where the source shows only some of them, e.g. 1000; None
                   counts them.
    hint           What to tell somebody who has no such source.

    Of a prepared source the options from resolution to test_fraction are known: None takes them,
    and another value than was prepared is refused. Takes the arguments of `DataModule` besides.
    Raises FileNotFoundError without a source, and ValueError where its contents or an option make
    no sense.
    """

    def __init__(
        self,
        source: str | Path,
        resolution: int | None,
        cache: str | Path,
        resize: str | None = None,
        crop: str | None = None,
        channels: int | None = None,
        background: str | None = None,
        test_fraction: float | None = None,
        num_classes: int | None = None,
        hint: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if test_fraction is not None and not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}; e.g. 0.1")
        self.source, self.cache, self.hint = Path(source), Path(cache), hint
        # The attribute num_classes is what setup() counts, so the option has another name.
        self.test_fraction, self.least_classes = test_fraction or 0.0, num_classes
        options = {
            "resolution": resolution,
            "resize": resize,
            "crop": crop,
            "channels": channels,
            "background": background,
        }
        # None asks for nothing: a prepared source has its own options, `Decoder` its defaults.
        asked = {name: value for name, value in options.items() if value is not None}
        self.decoder = self._as_prepared(asked) if is_prepared(self.source) else _decoder(asked)

    @cached_property
    def _plan(self) -> dict[str, Any]:
        """All that the decoded arrays depend on; its hash names their folder in the cache."""
        # Cached, since `identity` looks at every file of the source, a million of ImageNet's.
        made = {
            "format": FORMAT,
            "decoder": asdict(self.decoder),
            "test_fraction": self.test_fraction,
        }
        return {"source": identity(self.source), **made}

    @cached_property
    def folder(self) -> Path:
        """Where the arrays are: the source itself if it is prepared, else a folder in the cache."""
        return self.source if is_prepared(self.source) else self.cache / key_of(self._plan)

    def prepare_data(self) -> None:
        """Decode the source unless that was done, and check that the arrays were not altered.

        Several processes may do it at once: they share the work.
        """
        if self.hint and not self.source.exists():
            raise FileNotFoundError(f"no data at {self.source}; {self.hint}")
        # The folder appears under its name when it is complete, never before.
        if not self.folder.exists():
            layout = lay_out(self.source, self.test_fraction)
            options = {"test_fraction": self.test_fraction}
            prepare(self.source, layout, self.decoder, self.folder, options=options)
            if line := said(layout.passed_over):
                warn(f"{self.source}: {line}")
        # Also what lay in the cache: it may have been altered, or copied badly, since.
        check_if_changed(self.folder)

    def load(self) -> tuple[Split, Split, list[str]]:
        """Both splits, memory-mapped; raises FileNotFoundError where nothing is decoded yet."""
        if not self.folder.exists():
            raise FileNotFoundError(
                f"{self.source} is not decoded in {self.cache}; call prepare_data() first"
            )
        train, test, class_names = open_prepared(self.folder)
        if self.least_classes is not None:
            class_names = self._widened(class_names, self.least_classes)
        return train, test, class_names

    def identity(self) -> dict[str, Any]:
        """The hash of a prepared source; of another one its files and how they are decoded."""
        if is_prepared(self.source):  # known by its contents alone, wherever it lies
            return {
                "content": read_manifest(self.source)["content"],
                "num_classes": self.least_classes,
            }
        return {**self._plan, "num_classes": self.least_classes}

    def _as_prepared(self, asked: dict[str, Any]) -> Decoder:
        """The decoder that the source was prepared with; raises ValueError if asked for another."""
        manifest = read_manifest(self.source)
        if "autoencoder" in manifest:
            raise ValueError(f"{self.source} holds latents, not images; type data=latents")
        # The arrays cannot be changed any more, so a wish for others must not be passed over.
        done = manifest["decoder"]
        for name, value in asked.items():
            if value != done[name]:
                raise ValueError(
                    f"{self.source} was prepared with {name}={done[name]}, got {value}; "
                    f"type data.{name}={done[name]}, or prepare it again elsewhere"
                )
        if self.test_fraction:
            raise ValueError(
                f"{self.source} has its splits, got {self.test_fraction=}; set "
                "data.test_fraction=null"
            )
        return Decoder(**done)

    def _widened(self, class_names: list[str], num_classes: int) -> list[str]:
        """The class names, with numbers for the classes that the source does not show."""
        if len(class_names) > num_classes:
            raise ValueError(
                f"{self.source} has labels up to {len(class_names) - 1}, out of range for "
                f"{num_classes} classes; set data.num_classes={len(class_names)}"
            )
        # Labels keep their numbers; the names of the missing classes are unknown.
        return class_names + [str(i) for i in range(len(class_names), num_classes)]


def _decoder(options: dict[str, Any]) -> Decoder:
    # Null in YAML is for prepared sources, which have one.
    if "resolution" not in options:
        raise ValueError("the images have no resolution yet; e.g. data.resolution=64")
    return Decoder(**options)
