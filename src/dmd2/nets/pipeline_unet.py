"""What a published pipeline says of a U-Net, and of the text that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmd2.io.hub import COUNT, check_keys, config_in

UNSUPPORTED = {
    "class_embed_type": "labels or embeddings of another network",
    "num_class_embeds": "class labels beside the text",
    "time_cond_proj_dim": "a guidance scale: it is distilled already",
    "encoder_hid_dim": "text through a projection of its own",
    "encoder_hid_dim_type": "text through a projection of its own",
}
"""Arguments that give a U-Net an input which no denoiser here fills, and what it would read."""


def unet_config(source: str | Path) -> dict[str, Any]:
    """A pipeline's `unet/config.json`.

    Raises FileNotFoundError where there is none, ValueError where the network is of another class,
    or reads what no denoiser here gives it.
    """
    config = config_in(source, "unet/config.json")
    if (kind := config.get("_class_name")) != "UNet2DConditionModel":
        raise ValueError(f"the network of {source} is a {kind}, and not a UNet2DConditionModel")
    for key, what in UNSUPPORTED.items():
        if config.get(key) is not None:
            raise ValueError(f"the U-Net of {source} reads {what} ({key}={config[key]})")
    check_keys(
        f"the U-Net of {source}", config, dict.fromkeys(("in_channels", "out_channels"), COUNT)
    )
    read, made = config.get("in_channels", 4), config.get("out_channels", 4)
    if read != made:
        raise ValueError(
            f"the U-Net of {source} reads {read} channels and makes {made}: it is "
            + (
                "one for inpainting or editing, and reads an image beside the noise"
                if read > made
                else "one that makes something beside its prediction, e.g. a variance"
            )
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


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 0
