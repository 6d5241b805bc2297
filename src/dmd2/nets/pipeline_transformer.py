"""What a published pipeline says of a transformer: family, sizes, whether it can be a teacher."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmd2.diffusion.guidance import Guidance
from dmd2.io.hub import COUNT, check_keys, config_in, network_of, or_null
from dmd2.nets import families
from dmd2.nets.autoencoder_kinds import kind_of
from dmd2.nets.transformer import Transformer


@dataclass(frozen=True)
class Family:
    """A class of transformers of diffusers.

    denoiser     What reads it here.
    guidance     What its pipeline, or its authors, guide by; 1 is none.
    embedded     The scale that a network is told which reads one; its guidance is then none.
    outputs      Channels of its output for each that enters, as its file counts them.
    unguided     What turns guidance off in a call of its pipeline, and other ways of its own.
    is_by_class  Whether it reads a class, no text; its pipeline takes neither times nor sizes.
    resolution   Height and width of the images where no file says them.
    unsupported  Keys of its file that give it an input which nothing here fills, and what it is.
    """

    denoiser: type[Transformer]
    guidance: float | Guidance
    embedded: float | None = None
    outputs: float = 1
    unguided: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    is_by_class: bool = False
    resolution: int = 1024
    unsupported: dict[str, str] = field(default_factory=dict)


SCALE = {"guidance_embeds": "a guidance scale: it is distilled already"}
FAMILIES = {
    "SD3Transformer2DModel": Family(families.SD3, 7.0),
    "SanaTransformer2DModel": Family(
        families.Sana,
        4.5,
        unguided={"guidance_scale": 1.0, "use_resolution_binning": False},
        unsupported=SCALE,
    ),
    "FluxTransformer2DModel": Family(families.Flux, 3.5, embedded=3.5),
    "Flux2Transformer2DModel": Family(families.Flux2, 4.0, embedded=4.0),
    "ChromaTransformer2DModel": Family(families.Chroma, 5.0),
    # It counts what it reads in tokens of 2 x 2 pixels, and what it makes in pixels.
    "QwenImageTransformer2DModel": Family(
        families.QwenImage,
        Guidance(4.0, patch=2),
        unguided={"true_cfg_scale": 1.0},
        outputs=1 / 4,
        unsupported=SCALE
        | {
            "zero_cond_t": "an image to edit",
            "use_additional_t_cond": "an image to edit",
            "use_layer3d_rope": "layers of an image",
        },
    ),
    "ZImageTransformer2DModel": Family(
        # Its pipeline counts the scale from 0, and has 5.
        families.ZImage,
        6.0,
        unguided={"guidance_scale": 0.0},
        unsupported={"siglip_feat_dim": "an image beside the text"},
    ),
    # The other half is a variance.
    "PixArtTransformer2DModel": Family(
        families.PixArt,
        4.5,
        unguided={"guidance_scale": 1.0, "clean_caption": False, "use_resolution_binning": False},
        outputs=2,
    ),
    "DiTTransformer2DModel": Family(families.DiT, 4.0, is_by_class=True, outputs=2, resolution=256),
    "AuraFlowTransformer2DModel": Family(families.AuraFlow, 3.5),
}
"""By the name of their class."""
FEW_STEPS = r"turbo|schnell|lightning|sprint|flash|hyper|lcm"
"""Names that pipelines have which make images in few steps."""


def transformer_config(source: str | Path) -> dict[str, Any]:
    """A pipeline's `transformer/config.json`.

    Raises FileNotFoundError where there is none, ValueError where the network is of another class,
    or reads what no denoiser here gives it.
    """
    config = config_in(source, "transformer/config.json")
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"the network of {source} is a {kind}, and known are {', '.join(FAMILIES)}, and U-Nets"
        )
    family = FAMILIES[kind]
    for key, what in family.unsupported.items():
        if config.get(key):
            raise ValueError(f"the network of {source} reads {what} ({key}={config[key]})")
    sizes = ("in_channels", "out_channels", "sample_size", "patch_size")
    check_keys(f"the transformer of {source}", config, dict.fromkeys(sizes, or_null(COUNT)))
    read, made = config.get("in_channels"), config.get("out_channels")
    if read is not None and made not in (None, read * family.outputs):
        raise ValueError(
            f"the network of {source} reads {read} channels and makes {made}: it is one for "
            "inpainting or editing, and reads an image beside the noise"
        )
    return config


def family_of(source: str | Path) -> Family:
    """The family of a pipeline's transformer."""
    return FAMILIES[transformer_config(source)["_class_name"]]


def check_is_teacher(source: str | Path) -> None:
    """Raise ValueError for a pipeline that makes images in few steps already: its score at other
    steps is not the data's.
    """
    index = config_in(source, "model_index.json")
    config = config_in(source, f"{network_of(source)}/config.json")
    kind = config["_class_name"]
    names = [Path(str(source)).name, *(str(said.get("_name_or_path")) for said in (index, config))]
    reason = None
    if index.get("is_distilled"):
        reason = "its model_index.json says is_distilled"
    elif kind == "FluxTransformer2DModel" and not config.get("guidance_embeds"):
        reason = "a FLUX.1 without a guidance scale is schnell, or one tuned from it"
    elif kind == "ZImageTransformer2DModel" and shift_of(source) == 3:
        reason = "a Z-Image of shift 3 is Turbo"
    elif found := [name for name in names if re.search(FEW_STEPS, name.lower())]:
        reason = f"its name is {found[0]}"
    if reason is not None:
        raise ValueError(
            f"{source} makes images in few steps already ({reason}), so its score between them is "
            "not the data's; name the model that it was distilled from, or type "
            "teacher.distilled=allow"
        )


def shift_of(source: str | Path) -> Any:
    """The static shift that a pipeline's scheduler says, if any."""
    return config_in(source, "scheduler/scheduler_config.json").get("shift")


def transformer_resolution(source: str | Path) -> int:
    """Height and width of a transformer's images: as its file says, else those of its family."""
    size = transformer_config(source).get("sample_size")
    return size * kind_of(str(source))[1]["factor"] if size else family_of(source).resolution


def num_tokens(source: str | Path, resolution: int | None) -> int:
    """The tokens of an image of so many pixels in height and width; None is what the files say."""
    patch = family_of(source).denoiser.patch_of(transformer_config(source))
    pixels = resolution or transformer_resolution(source)
    return (pixels // kind_of(str(source))[1]["factor"] // patch) ** 2
