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
from dmd2.io.hub import PREDICTION_TYPES, named_in_errors, network_of
from dmd2.nets.autoencoder import VAE
from dmd2.nets.autoencoder_kinds import kind_of, vae_of
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.pipeline_noise import noise_of
from dmd2.nets.pipeline_transformer import (
    check_is_teacher,
    family_of,
    num_tokens,
    transformer_config,
    transformer_resolution,
)
from dmd2.nets.pipeline_unet import check_text, reads_sizes, unet_config
from dmd2.nets.text.clip import clip, clip_pair
from dmd2.nets.text.encoder import TextEncoder
from dmd2.nets.text.families import ENCODERS
from dmd2.nets.transformer import Tap
from dmd2.nets.unet import UNet, UNetXL

UNREAD = ("sample_size", "upcast_attention", "dropout")
"""Arguments of a network that change no number of a frozen one, or its precision alone."""
MIDDLE = "mid_block"
"""A U-Net's layer at the depth 0.5, half-way."""


def from_configs(
    source: str,
    taps: Sequence[Tap],
    gradient_checkpointing: bool,
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

    is_unet = network_of(source) == "unet"
    config = unet_config(source) if is_unet else transformer_config(source)
    if distilled == "refuse":
        check_is_teacher(source)
    if is_unet:
        schedule, prediction = noise_of(source)
        kind = UNetXL if reads_sizes(config) else UNet
        with named_in_errors(source, "U-Net"):
            model = diffusers.UNet2DConditionModel.from_config(config)
        named = [MIDDLE if tap == 0.5 else str(tap) for tap in taps]
        return kind(model, schedule, prediction, named, gradient_checkpointing)
    family = family_of(source)
    schedule, prediction = noise_of(source, num_tokens(source, resolution))
    with named_in_errors(source, "transformer"):
        model = getattr(diffusers, config["_class_name"]).from_config(config)
    scale: dict[str, float | None] = {}
    if config.get("guidance_embeds"):
        own = family.embedded if embedded_guidance is None else embedded_guidance
        scale = {"embedded_guidance": own}
    elif embedded_guidance is not None:
        raise ValueError(
            f"the network of {source} reads no guidance scale; type teacher.embedded_guidance=null"
        )
    return family.denoiser(model, schedule, prediction, taps, gradient_checkpointing, **scale)


def pipeline_guidance(source: str) -> float | Guidance:
    """The guidance that a pipeline's family is published with; 1.0 is none."""
    if network_of(source) == "unet":
        return 3.0  # nothing in its files says one
    is_told = transformer_config(source).get("guidance_embeds")
    return 1.0 if is_told else family_of(source).guidance


def network_config(source: str | Path) -> dict[str, Any]:
    """The file of a pipeline's denoiser.

    Raises FileNotFoundError where there is none, ValueError where nothing here is like it.
    """
    return unet_config(source) if network_of(source) == "unet" else transformer_config(source)


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
    tokens = None if isinstance(denoiser, UNet) else num_tokens(source, resolution)
    schedule, prediction = noise_of(source, tokens)
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
) -> VAE:
    """A pipeline's VAE, of the class, scale, channels and factor that its own file says.

    resolution  Height and width of the images; None is what the network's file says, or what its
                family makes.

    Other arguments are those of `VAE`. Raises FileNotFoundError where there is no VAE, ValueError
    where no class here is for it, or no file says a size.
    """
    if resolution is None and network_of(source) == "transformer":
        resolution = transformer_resolution(source)
    elif resolution is None:
        _, said = kind_of(source)
        size = unet_config(source).get("sample_size")
        if not isinstance(size, int):
            raise ValueError(
                f"the U-Net of {source} has sample_size={size}; name height and width of the "
                "images: teacher.autoencoder.resolution=512"
            )
        resolution = size * said["factor"]
    return vae_of(source, resolution, variant, dtype, at_once)


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
    if network_of(source) == "transformer":
        kind = transformer_config(source)["_class_name"]
        if kind not in ENCODERS:
            raise ValueError(
                f"the network of {source} is a {kind}, and reads no text; type teacher=dit, whose "
                "condition is a class"
            )
        return ENCODERS[kind](source, variant, dtype, length)
    config = unet_config(source)
    check_text(source, config)
    if not reads_sizes(config):
        return clip(source, variant, dtype)
    size = resolution or pipeline_vae(source).resolution
    return clip_pair(source, size, variant, dtype)
