"""Families of transformers: what a published pipeline says of its network, its sizes, its text, and
whether it can be a teacher.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dmd2.io.hub import COUNT, check_keys, config_in, or_null
from dmd2.nets.autoencoder_kinds import kind_of
from dmd2.nets.family import Config, Family
from dmd2.nets.text.encoder import TextEncoder
from dmd2.nets.transformer import Transformer

SCALE = {"guidance_embeds": "a guidance scale: it is distilled already"}
"""For `unsupported`."""


def schnell(_source: str | Path, config: Config) -> str | None:
    """Why a FLUX.1 makes images in few steps; None: it does not."""
    is_told = config.get("guidance_embeds")
    return None if is_told else "a FLUX.1 without a guidance scale is schnell, or one tuned from it"


def zimage_turbo(source: str | Path, _config: Config) -> str | None:
    """Why a Z-Image makes images in few steps; None: it does not."""
    shift = config_in(source, "scheduler/scheduler_config.json").get("shift")
    return "a Z-Image of shift 3 is Turbo" if shift == 3 else None


@dataclass(frozen=True, kw_only=True)
class TransformerFamily(Family):
    """A class of transformers of diffusers.

    denoiser     What reads it here.
    text         Loads its text encoder, as the functions of `nets.text.families`; None where the
                 network reads a class, and no text.
    outputs      Channels of its output for each that enters, as its file counts them.
    resolution   Height and width of the images where no file says them.
    unsupported  Keys of its file that give it an input which nothing here fills, and what it is.
    """

    denoiser: type[Transformer]
    text: Callable[..., TextEncoder] | None
    outputs: float = 1
    resolution: int = 1024
    unsupported: Mapping[str, str] = field(default_factory=dict)

    folder = Transformer.folder

    def check(self, source: str | Path, config: Config) -> None:
        """Raise ValueError where a network reads what no denoiser here gives it."""
        for key, what in self.unsupported.items():
            if config.get(key):
                raise ValueError(f"the network of {source} reads {what} ({key}={config[key]})")
        sizes = ("in_channels", "out_channels", "sample_size", "patch_size")
        check_keys(f"the transformer of {source}", config, dict.fromkeys(sizes, or_null(COUNT)))
        read, made = config.get("in_channels"), config.get("out_channels")
        if read is not None and made not in (None, read * self.outputs):
            raise ValueError(
                f"the network of {source} reads {read} channels and makes {made}: it is one for "
                "inpainting or editing, and reads an image beside the noise"
            )

    def denoiser_for(self, config: Config) -> type[Transformer]:
        """The class of the denoiser for a network."""
        return self.denoiser

    def resolution_of(self, source: str | Path, config: Config) -> int:
        """Height and width of images in pixels: as the network's file says, else its family's."""
        size = config.get("sample_size")
        return size * kind_of(source)[1]["factor"] if size else self.resolution

    def num_tokens(self, source: str | Path, config: Config, resolution: int | None) -> int:
        """The tokens of an image of so many pixels in height and width."""
        pixels = resolution or self.resolution_of(source, config)
        return (pixels // kind_of(source)[1]["factor"] // self.denoiser.patch_of(config)) ** 2

    def encoder(
        self,
        source: str,
        config: Config,
        resolution: int | None,
        variant: str | None,
        dtype: str,
        length: int | None,
    ) -> TextEncoder:
        """A pipeline's text encoder; raises ValueError where the network reads no text."""
        if self.text is None:
            raise ValueError(
                f"the network of {source} is a {config['_class_name']}, and reads no text; type "
                "teacher=dit, whose condition is a class"
            )
        return self.text(source, variant, dtype, length)
