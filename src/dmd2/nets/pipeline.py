"""What a published pipeline of diffusers says in its own files, as objects: U-Net, VAE, encoders.

Every key that changes the mathematics is used, or refused by its name; a denoiser that was
described elsewhere is compared with the files (`check_agrees`).
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dmd2.io.hub import PREDICTIONS, config_in, named_in_errors
from dmd2.nets.autoencoder import VAE
from dmd2.nets.pipeline_noise import noise_of
from dmd2.nets.text.clip import CLIP, clip, clip_pair
from dmd2.nets.unet import UNet, UNetXL

UNREAD = ("sample_size", "upcast_attention", "dropout")
"""Arguments of a U-Net that change no number of a frozen network, or its precision alone."""
UNSUPPORTED = {
    "class_embed_type": "labels or embeddings of another network",
    "num_class_embeds": "class labels beside the text",
    "time_cond_proj_dim": "a guidance scale: it is distilled already",
    "encoder_hid_dim": "text through a projection of its own",
    "encoder_hid_dim_type": "text through a projection of its own",
}
"""Arguments that give a U-Net an input which no denoiser here fills, and what it would read."""


def from_configs(source: str, taps: Sequence[str], gradient_checkpointing: bool) -> UNet:
    """A pipeline's denoiser, untrained, as its `unet/config.json` and
    `scheduler/scheduler_config.json` describe it: a `UNetXL` where it reads sizes and crops.

    source  A folder, or a name on the hub.

    Raises FileNotFoundError where there is none, ValueError where the files describe something
    that no denoiser here is.
    """
    from diffusers import UNet2DConditionModel  # noqa: PLC0415

    config = unet_config(source)
    schedule, prediction = noise_of(source)
    kind = UNetXL if reads_sizes(config) else UNet
    with named_in_errors(source, "U-Net"):
        model = UNet2DConditionModel.from_config(config)
    return kind(model, schedule, prediction, taps, gradient_checkpointing)


def unet_config(source: str | Path) -> dict[str, Any]:
    """A pipeline's `unet/config.json`.

    Raises FileNotFoundError where there is none, ValueError where the network is of another class,
    or reads what no denoiser here gives it.
    """
    try:
        config = config_in(source, "unet/config.json")
    except FileNotFoundError as error:
        try:
            kind = config_in(source, "transformer/config.json").get("_class_name")
        except FileNotFoundError:
            raise error from None
        raise ValueError(
            f"the network of {source} is a transformer ({kind}), and teachers here are U-Nets "
            "(Stable Diffusion 1.5, 2.1, XL)"
        ) from error
    if (kind := config.get("_class_name")) != "UNet2DConditionModel":
        raise ValueError(f"the network of {source} is a {kind}, and not a UNet2DConditionModel")
    for key, what in UNSUPPORTED.items():
        if config.get(key) is not None:
            raise ValueError(f"the U-Net of {source} reads {what} ({key}={config[key]})")
    read, made = config.get("in_channels", 4), config.get("out_channels", 4)
    if read != made:
        raise ValueError(
            f"the U-Net of {source} reads {read} channels and makes {made}: it is one for "
            "inpainting or editing, and reads an image beside the noise"
        )
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise ValueError(
            f"the U-Net of {source} has addition_embed_type={config['addition_embed_type']}, and "
            "only text_time (SDXL's) is supported"
        )
    if config.get("attention_type", "default") != "default":
        raise ValueError(
            f"the U-Net of {source} has attention_type={config['attention_type']}: it reads "
            "boxes beside the text"
        )
    return config


def reads_sizes(config: Mapping[str, Any]) -> bool:
    """Whether a U-Net of this config is SDXL's: it also reads pooled text, sizes and crops."""
    return config.get("addition_embed_type") is not None


def check_text(source: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a pipeline's encoders do not make what its U-Net, of this config,
    reads.
    """
    is_xl = reads_sizes(config)
    names = ("text_encoder", "text_encoder_2") if is_xl else ("text_encoder",)
    encoders = [config_in(source, f"{name}/config.json") for name in names]
    made, read = sum(_size(e, "hidden_size") for e in encoders), config.get("cross_attention_dim")
    if made != read:
        raise ValueError(
            f"the U-Net of {source} reads text of width {read}, and its encoders make {made}"
        )
    if is_xl:
        # Beside the pooled text it embeds six numbers: sizes, crops (Podell et al. 2023).
        pooled, width = (
            _size(encoders[-1], "projection_dim"),
            _size(config, "addition_time_embed_dim"),
        )
        if _size(config, "projection_class_embeddings_input_dim") != pooled + 6 * width:
            raise ValueError(
                f"the U-Net of {source} does not read pooled text of {pooled} numbers and six of "
                "sizes and crops, as SDXL base does; SDXL's refiner reads others"
            )


def check_agrees(source: str | Path, denoiser: UNet) -> None:
    """Raise ValueError, with both values, where a pipeline's files say something else than a
    denoiser that was described elsewhere, e.g. in YAML.

    The weights do not show it: a v network loads as an eps network, and makes noise.
    """
    theirs = unet_config(source)
    schedule, prediction = noise_of(source)
    remedy = "choose the teacher that it is of, or teacher=pipeline, which reads the files"
    if prediction != denoiser.prediction:
        published = next(name for name, ours in PREDICTIONS.items() if ours == prediction)
        raise ValueError(
            f"{source} predicts {published}, and this configuration has "
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
                f"the U-Net of {source} has {name}={said}, and this configuration "
                f"{name}={is_here}; {remedy}"
            )


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 0


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
    """A pipeline's VAE, with scale, channels and factor as its own file says.

    resolution  Height and width of the images; None is what the U-Net's file says.

    Other arguments are those of `VAE`. Raises FileNotFoundError where there is no VAE, ValueError
    where no file says a size.
    """
    config = config_in(source, "vae/config.json")
    factor = 2 ** (len(config.get("block_out_channels", ())) - 1)
    if resolution is None:
        size = unet_config(source).get("sample_size")
        if not isinstance(size, int):
            raise ValueError(
                f"the U-Net of {source} has sample_size={size}; name height and width of the "
                "images: teacher.autoencoder.resolution=512"
            )
        resolution = size * factor
    channels, scale = config.get("latent_channels", 4), config.get("scaling_factor", 0.18215)
    return VAE(source, resolution, scale, channels, factor, "vae", dtype, at_once, variant)


def pipeline_encoder(
    source: str,
    resolution: int | None = None,
    variant: str | None = None,
    dtype: str = "float32",
) -> CLIP:
    """A pipeline's text encoder: SDXL's two where its U-Net reads them, else the one.

    resolution  Height and width of the images, of which SDXL's network is told; None is what the
                U-Net's file says.

    Raises FileNotFoundError where a part is lacking, ValueError where the encoders do not make
    what the U-Net reads.
    """
    config = unet_config(source)
    check_text(source, config)
    if not reads_sizes(config):
        return clip(source, variant, dtype)
    size = resolution or pipeline_vae(source).resolution
    return clip_pair(source, size, variant, dtype)
