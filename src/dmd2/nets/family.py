"""A family of published networks: what all pipelines with one class of network have in common, and
do not say in their files.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from dmd2.diffusion.guidance import Guidance
from dmd2.io.hub import config_in
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.flow_shift import Mu, line_mu
from dmd2.nets.original_names import no_names
from dmd2.nets.recipe import Recipe
from dmd2.nets.text.encoder import TextEncoder

Config = Mapping[str, Any]
"""The content of the file that describes a pipeline's network."""
Taken = Literal["timesteps", "sigmas", "sizes"]
FEW_STEPS = r"turbo|schnell|lightning|sprint|flash|hyper|lcm"
"""Names that pipelines have which make images in few steps."""


def unknown(_source: str | Path, _config: Config) -> str | None:
    """None: what files say beside a name does not tell whether images take few steps."""
    return None


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base. A row of `nets.pipeline_families` is one.

    guidance    What its pipeline, or its authors, guide by; 1 is none.
    recipe      How it is distilled with LoRA; None where it cannot be.
    time_layer  What embeds the time as [B, E]; None where no layer does (Chroma, DiT).
    embedded    The scale that a network is told which reads one; its guidance is then none.
    unguided    What turns guidance off in a call of its pipeline, and other ways of its own.
    takes       What a call of its pipeline can be told beside the number of steps.
    mu          How a flow's shift follows the number of tokens.
    layout      The name of a tensor in its authors' files; None where none is known.
    names       Names of a network's layers in its authors' code, as `names_by` gives them.
    few_steps   Why a network makes images in few steps already, of its source and its config; None
                where it does not.
    """

    guidance: float | Guidance
    recipe: Recipe | None
    time_layer: str | None = None
    embedded: float | None = None
    unguided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    takes: tuple[Taken, ...] = ("timesteps", "sigmas", "sizes")
    mu: Mu = line_mu
    layout: str | None = None
    names: Callable[[nn.Module], Iterator[tuple[str, list[str]]]] = no_names
    few_steps: Callable[[str | Path, Config], str | None] = unknown

    folder: ClassVar[str]
    """Of a pipeline, in which such a network is."""
    prefix: ClassVar[str] = ""
    """What diffusers' table of its authors' names wants before each name."""

    def check(self, source: str | Path, config: Config) -> None:
        """Raise ValueError where a network reads what no denoiser here gives it."""
        raise NotImplementedError

    def check_is_teacher(self, source: str | Path, config: Config) -> None:
        """Raise ValueError for a pipeline that makes images in few steps already."""
        index: Config = {}
        with suppress(FileNotFoundError):  # a network and its scheduler alone can be a teacher
            index = config_in(source, "model_index.json")
        own = (Path(str(source)).name, index.get("_name_or_path"), config.get("_name_or_path"))
        named = [name for name in map(str, own) if re.search(FEW_STEPS, name.lower())]
        reasons = (
            "its model_index.json says is_distilled" if index.get("is_distilled") else None,
            self.few_steps(source, config),
            f"its name is {named[0]}" if named else None,
        )
        if reason := next(filter(None, reasons), None):
            raise ValueError(
                f"{source} makes images in few steps already ({reason}), so its score between them "
                "is not the data's; name the model that it was distilled from, or type "
                "teacher.distilled=allow"
            )

    def reads_scale(self, config: Config) -> bool:
        """Whether a network is told a guidance scale."""
        return self.embedded is not None and bool(config.get("guidance_embeds"))

    def denoiser_for(self, config: Config) -> Callable[..., DiffusersNet]:
        """The class of the denoiser for a network."""
        raise NotImplementedError

    def resolution_of(self, source: str | Path, config: Config) -> int:
        """Height and width of a pipeline's images in pixels."""
        raise NotImplementedError

    def num_tokens(self, source: str | Path, config: Config, resolution: int | None) -> int | None:
        """The tokens of an image, as of `pipeline_families.num_tokens`; here there are none."""
        return None

    def encoder(
        self,
        source: str,
        config: Config,
        resolution: int | None,
        variant: str | None,
        dtype: str,
        length: int | None,
    ) -> TextEncoder:
        """A pipeline's text encoder, as of `pipeline_encoder`."""
        raise NotImplementedError
