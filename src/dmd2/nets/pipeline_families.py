"""The families of networks that pipelines are read of: a row each, by the name of diffusers' class.

A new family is a row here, and its denoiser in `nets.families` (docs/families.md has the steps).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dmd2.diffusion.guidance import Guidance
from dmd2.io.hub import config_in, network_of
from dmd2.nets import families, recipe
from dmd2.nets.family import Family
from dmd2.nets.flow_shift import flux2_mu
from dmd2.nets.original_names import FLUX, SD3, names_by, unet_names
from dmd2.nets.pipeline_transformer import SCALE, TransformerFamily, schnell, zimage_turbo
from dmd2.nets.pipeline_unet import UNetFamily
from dmd2.nets.text import families as texts

FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": UNetFamily(
        guidance=3.0,  # nothing in its files says one
        recipe=recipe.UNETS,
        time_layer="time_embedding",
        unguided={"guidance_scale": 0.0},
        takes=("timesteps",),
        layout="input_blocks.0.0.weight",
        names=unet_names,
    ),
    "SD3Transformer2DModel": TransformerFamily(
        denoiser=families.SD3,
        text=texts.sd3_text,
        guidance=7.0,
        recipe=recipe.TDM,
        time_layer="time_text_embed",
        layout="joint_blocks.0.context_block.attn.qkv.weight",
        names=partial(names_by, SD3),
    ),
    "SanaTransformer2DModel": TransformerFamily(
        denoiser=families.Sana,
        text=texts.sana_text,
        guidance=4.5,
        recipe=recipe.FLOWS,
        time_layer="time_embed.emb",
        unguided={"guidance_scale": 1.0, "use_resolution_binning": False},
        unsupported=SCALE,
        layout="blocks.0.cross_attn.q_linear.weight",
    ),
    # Before FLUX.1, whose layout it has, too.
    "ChromaTransformer2DModel": TransformerFamily(
        denoiser=families.Chroma,
        text=texts.chroma_text,
        guidance=5.0,
        recipe=recipe.FLOWS,
        layout="distilled_guidance_layer.in_proj.weight",
        names=partial(names_by, FLUX),
    ),
    "FluxTransformer2DModel": TransformerFamily(
        denoiser=families.Flux,
        text=texts.flux_text,
        guidance=3.5,
        recipe=recipe.FLOWS,
        time_layer="time_text_embed",
        embedded=3.5,
        few_steps=schnell,
        layout="double_blocks.0.img_attn.qkv.weight",
        names=partial(names_by, FLUX),
    ),
    "Flux2Transformer2DModel": TransformerFamily(
        denoiser=families.Flux2,
        text=texts.klein_text,
        guidance=4.0,
        recipe=recipe.FLOWS,
        time_layer="time_guidance_embed",
        embedded=4.0,
        mu=flux2_mu,
        layout="single_stream_modulation.lin.weight",
    ),
    "QwenImageTransformer2DModel": TransformerFamily(
        denoiser=families.QwenImage,
        text=texts.qwen_image_text,
        guidance=Guidance(4.0, patch=2),
        recipe=recipe.FLOWS,
        time_layer="time_text_embed",
        unguided={"true_cfg_scale": 1.0},
        outputs=1 / 4,  # it counts what it reads in tokens of 2 x 2 pixels, what it makes in pixels
        unsupported=SCALE
        | {
            "zero_cond_t": "an image to edit",
            "use_additional_t_cond": "an image to edit",
            "use_layer3d_rope": "layers of an image",
        },
        layout="transformer_blocks.0.img_mod.1.weight",
    ),
    "ZImageTransformer2DModel": TransformerFamily(
        denoiser=families.ZImage,
        text=texts.zimage_text,
        guidance=6.0,  # its pipeline counts the scale from 0, and has 5
        recipe=recipe.FLOWS,
        time_layer="t_embedder",
        unguided={"guidance_scale": 0.0},
        unsupported={"siglip_feat_dim": "an image beside the text"},
        few_steps=zimage_turbo,
        layout="layers.0.adaLN_modulation.0.weight",
    ),
    "PixArtTransformer2DModel": TransformerFamily(
        denoiser=families.PixArt,
        text=texts.pixart_text,
        guidance=4.5,
        recipe=recipe.TDM,
        time_layer="adaln_single.emb",
        unguided={"guidance_scale": 1.0, "clean_caption": False, "use_resolution_binning": False},
        outputs=2,  # the other half is a variance
    ),
    "DiTTransformer2DModel": TransformerFamily(
        denoiser=families.DiT,
        text=None,
        guidance=4.0,
        recipe=None,  # experiment=distil wants captions
        takes=(),
        outputs=2,
        resolution=256,
    ),
    "AuraFlowTransformer2DModel": TransformerFamily(
        denoiser=families.AuraFlow,
        text=texts.auraflow_text,
        guidance=3.5,
        recipe=recipe.FLOWS,
        time_layer="time_step_proj",
        layout="double_layers.0.attn.w1q.weight",
    ),
}
"""Of each class of diffusers, what its files do not say."""


def network_config(source: str | Path) -> dict[str, Any]:
    """The file that describes a pipeline's network.

    Raises FileNotFoundError where there is none, ValueError where the network is of another class,
    or reads what no denoiser here gives it.
    """
    folder = network_of(source)
    config = config_in(source, f"{folder}/config.json")
    kind = config.get("_class_name")
    known = [name for name, family in FAMILIES.items() if family.folder == folder]
    if kind not in known:
        raise ValueError(f"the network of {source} is a {kind}, and known are {', '.join(known)}")
    FAMILIES[kind].check(source, config)
    return config


def family_of(source: str | Path) -> Family:
    """The family of a pipeline's network; raises as `network_config`."""
    return FAMILIES[network_config(source)["_class_name"]]


def resolution_of(source: str | Path) -> int:
    """Height and width of a pipeline's images in pixels, as the files or its family say."""
    return family_of(source).resolution_of(source, network_config(source))


def num_tokens(source: str | Path, resolution: int | None) -> int | None:
    """The tokens of an image of so many pixels in height and width, None of a network without any.

    resolution  None is what the files say, or the family.
    """
    return family_of(source).num_tokens(source, network_config(source), resolution)


def family_of_network(network: nn.Module) -> Family:
    """The family of a network of diffusers; raises ValueError where none is known."""
    if (kind := type(network).__name__) not in FAMILIES:
        raise ValueError(f"the network is a {kind}, and known are {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def original_names(network: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """Names of layers in their authors' code, each with the layers that its rows are here; none of
    a network of no family.
    """
    family = FAMILIES.get(type(network).__name__)
    return iter(()) if family is None else family.names(network)
