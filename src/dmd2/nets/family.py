"""A family of published networks: what all pipelines with one class of network have in common, and
do not say in their files.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from dmd2.diffusion.guidance import Guidance
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.flow_shift import Mu, line_mu
from dmd2.nets.original_names import no_names
from dmd2.nets.recipe import Recipe
from dmd2.nets.text.encoder import TextEncoder

Config = Mapping[str, Any]
"""The content of the file that describes a pipeline's network."""
Taken = Literal["timesteps", "sigmas", "sizes"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base. A row of `nets.pipeline_families` is one.

    guidance  What its pipeline, or its authors, guide by; 1 is none.
    recipe    How it is distilled with LoRA; None where it cannot be.
    embedded  The scale that a network is told which reads one; its guidance is then none.
    unguided  What turns guidance off in a call of its pipeline, and other ways of its own.
    takes     What a call of its pipeline can be told beside the number of steps.
    mu        How a flow's shift follows the number of tokens.
    layout    The name of a tensor in its authors' files; None where none is known.
    names     Names of a network's layers in its authors' code, as `names_by` gives them.
    """

    guidance: float | Guidance
    recipe: Recipe | None
    embedded: float | None = None
    unguided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    takes: tuple[Taken, ...] = ("timesteps", "sigmas", "sizes")
    mu: Mu = line_mu
    layout: str | None = None
    names: Callable[[nn.Module], Iterator[tuple[str, list[str]]]] = no_names

    folder: ClassVar[str]
    """Of a pipeline, in which such a network is."""
    prefix: ClassVar[str] = ""
    """What diffusers' table of its authors' names wants before each name."""

    def check(self, source: str | Path, config: Config) -> None:
        """Raise ValueError where a network reads what no denoiser here gives it."""
        raise NotImplementedError

    def check_is_teacher(self, source: str | Path, config: Config) -> None:
        """Raise ValueError for a pipeline that makes images in few steps already, as far as known:
        its score at other steps is not the data's.
        """

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
