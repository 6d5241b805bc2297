"""What a published pipeline of diffusers says in its own files, as objects: network, VAE, encoders.

Every key that changes the mathematics is used, or refused by its name; a denoiser that was
described elsewhere is compared with the files (`check_agrees`).
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dmd2.diffusion.guidance import Guidance
from dmd2.io.hub import PREDICTION_TYPES, named_in_errors
from dmd2.io.pretrained import check_known
from dmd2.nets.autoencoder import VAE
from dmd2.nets.autoencoder_kinds import vae_of
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.diffusers_net import DiffusersNet, Tap
from dmd2.nets.pipeline_families import family_of, network_config, num_tokens, resolution_of
from dmd2.nets.pipeline_noise import noise_of
from dmd2.nets.text.encoder import TextEncoder

UNREAD = ("sample_size", "upcast_attention", "dropout")
"""Arguments of a network that change no number of a frozen one, or its precision alone."""


def from_configs(
    source: str,
    taps: Sequence[Tap],
    gradient_checkpointing: Checkpointing,
    resolution: int | None = None,
    embedded_guidance: float | None = None,
    distilled: Literal["refuse", "allow"] = "refuse",
) -> DiffusersNet:
    """A pipeline's denoiser, untrained, as the files of its network and scheduler describe it.

    source             A folder, or a name on the hub.
    taps               Layers, by name or by depth; a U-Net's only depth is 0.5, its middle.
    resolution         Height and width of the images, on which a flow's shift may depend; None is
                       what the files say.
    embedded_guidance  The scale that a network is told which reads one; None is its family's.
    distilled          Whether a network that makes images in few steps already is refused.

    Raises FileNotFoundError where there is none, ValueError where the files describe something
    that no denoiser here is.
    """
    import diffusers  # noqa: PLC0415

    family, config = family_of(source), network_config(source)
    if distilled == "refuse":
        family.check_is_teacher(source, config)
    schedule, prediction = noise_of(source, num_tokens(source, resolution))
    with named_in_errors(source, family.folder):
        model = getattr(diffusers, config["_class_name"]).from_config(config)
    check_known(f"the network of {source}", config, model)
    scale: dict[str, float | None] = {}
    if family.reads_scale(config):
        own = family.embedded if embedded_guidance is None else embedded_guidance
        scale = {"embedded_guidance": own}
    elif embedded_guidance is not None:
        raise ValueError(
            f"the network of {source} reads no guidance scale; type teacher.embedded_guidance=null"
        )
    kind = family.denoiser_for(config)
    return kind(model, schedule, prediction, taps, gradient_checkpointing, **scale)


def pipeline_guidance(source: str) -> float | Guidance:
    """The guidance that a pipeline's family is published with; 1.0 is none."""
    family = family_of(source)
    return 1.0 if family.reads_scale(network_config(source)) else family.guidance


def check_agrees(source: str | Path, denoiser: DiffusersNet, resolution: int | None = None) -> None:
    """Raise ValueError, with both values, where a pipeline's files say something else than a
    denoiser that was described elsewhere, e.g. in YAML.

    The weights do not show it: a v network loads as an eps network, and makes noise.

    resolution  Height and width of the images, on which a flow's shift may depend; None is what
                the files say.
    """
    theirs = network_config(source)
    remedy = "choose the teacher that it is of, or teacher=pipeline, which reads the files"
    if (kind := theirs["_class_name"]) != (here := type(denoiser.model).__name__):
        raise ValueError(f"the network of {source} is a {kind}, and here it is a {here}; {remedy}")
    check_known(f"the network of {source}", theirs, denoiser.model)
    schedule, prediction = noise_of(source, num_tokens(source, resolution))
    if prediction != denoiser.prediction:
        raise ValueError(
            f"{source} predicts {PREDICTION_TYPES[prediction]}, and this configuration has "
            f"teacher.denoiser.prediction={denoiser.prediction}; {remedy}"
        )
    t = torch.linspace(0, 1, 101)
    pairs = zip(schedule.alpha_sigma(t), denoiser.schedule.alpha_sigma(t), strict=True)
    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs):
        middle = torch.tensor([0.5])
        half = [
            "alpha {:.4g}, sigma {:.4g}".format(*map(float, levels.alpha_sigma(middle)))
            for levels in (schedule, denoiser.schedule)
        ]
        raise ValueError(
            f"the noise schedule of {source} is another than this configuration's: half-way "
            f"{half[0]}, and here {half[1]}; {remedy}"
        )
    ours = denoiser.model.config
    for name, parameter in inspect.signature(type(denoiser.model)).parameters.items():
        said, is_here = theirs.get(name, parameter.default), ours.get(name, parameter.default)
        if name not in UNREAD and _plain(said) != _plain(is_here):
            raise ValueError(
                f"the network of {source} has {name}={said}, and this configuration "
                f"{name}={is_here}; {remedy}"
            )


def _plain(value: Any) -> Any:
    """A config's value such that what means the same is equal: null and false, [8, 8] and 8."""
    if isinstance(value, list | tuple) and value and all(item == value[0] for item in value):
        return value[0]
    return list(value) if isinstance(value, list | tuple) else value or None


def pipeline_vae(
    source: str,
    resolution: int | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    at_once: int = 4,
    tile: int | None = None,
) -> VAE:
    """A pipeline's VAE, of the class, scale, channels and factor that its own file says.

    resolution  Height and width of the images; None is what the network's file says, or what its
                family makes.

    Other arguments are those of `VAE`. Raises FileNotFoundError where there is no VAE, ValueError
    where no class here is for it, or no file says a size.
    """
    if resolution is None:
        resolution = resolution_of(source)
    return vae_of(source, resolution, variant, dtype, at_once, tile)


def pipeline_encoder(
    source: str,
    resolution: int | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    length: int | None = None,
) -> TextEncoder:
    """A pipeline's text encoder: of a transformer its family's; of a U-Net SDXL's two where it
    reads them, else the one.

    resolution  Height and width of the images, of which SDXL's network is told; None is what the
                U-Net's file says.
    length      Tokens of a caption that a transformer reads; None is as many as its pipeline.

    Raises FileNotFoundError where a part is lacking, ValueError where the encoders do not make
    what the network reads.
    """
    config = network_config(source)
    return family_of(source).encoder(source, config, resolution, variant, dtype, length)
