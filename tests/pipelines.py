"""A pipeline of diffusers in small, with random weights, saved as published ones are; and overrides
that fit it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dmd2.nets.text.tiny import tiny_clip

TOKENS = 8
UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 8,
}
XL = {
    "cross_attention_dim": 32,
    "use_linear_projection": True,
    "transformer_layers_per_block": [1, 1],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 24 + 6,
}
SHRUNKEN = [
    *(f"++teacher.denoiser.model.{key}={value}".replace(" ", "") for key, value in UNET.items()),
    "teacher.autoencoder.resolution=16",
    "+teacher.autoencoder.factor=2",
    "+teacher.head.num_groups=4",
]
"""Stable Diffusion at a size for tests: images of 16x16, latents of 4x8x8."""


CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
UNWATCHED = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}


def shrunken(name: str) -> list[str]:
    """Overrides of teacher `name`, "sd15" or "sdxl", that make it the saved pipeline's."""
    if name != "sdxl":
        return SHRUNKEN
    added = [
        f"++teacher.denoiser.model.{key}={value}".replace(" ", "") for key, value in XL.items()
    ]
    return [*SHRUNKEN, *added, "teacher.conditioner.encoder.size=16"]


def save_pipeline(
    folder: Path,
    name: str = "sd15",
    prediction: str = "epsilon",
    scheduler: Any = None,
    unet: Mapping[str, Any] = {},
    shard: str | None = None,
) -> Path:
    """Write a pipeline of the kind of "sd15" or "sdxl" to `folder`, with all that
    `DiffusionPipeline` asks for.

    scheduler  One of diffusers' in place of Stable Diffusion's; unet: further arguments of the
               network; shard: the most that a file of its weights may have, e.g. "60KB".
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel  # noqa: PLC0415
    from transformers import CLIPTextModelWithProjection  # noqa: PLC0415

    is_xl = name == "sdxl"
    torch.manual_seed(0)
    network = UNet2DConditionModel(**UNET | (XL if is_xl else {}) | dict(unet))
    network.save_pretrained(folder / "unet", **({"max_shard_size": shard} if shard else {}))
    scheduler = scheduler or DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
    )
    scheduler.save_pretrained(folder / "scheduler")
    save_vae(folder / "vae", 0.13025 if is_xl else 0.18215)
    text = tiny_clip(["a", "red", "dot"], hidden_size=16, num_layers=2, max_length=TOKENS)
    text.models[0].save_pretrained(folder / "text_encoder")
    text.tokenizers[0].save_pretrained(folder / "tokenizer")
    if is_xl:
        config = text.models[0].config
        config.projection_dim = 6
        CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
        text.tokenizers[0].save_pretrained(folder / "tokenizer_2")
    kind = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
    index = {
        "_class_name": kind,
        **{part: CLASSES[part] for part in CLASSES if (folder / part).is_dir()},
    }
    (folder / "model_index.json").write_text(json.dumps(index | ({} if is_xl else UNWATCHED)))
    return folder


def save_variant(folder: Path, *parts: str, variant: str = "fp16") -> None:
    """Write the weights of a saved pipeline's parts again, rounded to float16, each beside its
    plain file.
    """
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    for part in parts:
        (plain,) = (folder / part).glob("*.safetensors")
        half = {
            name: weight.half() if weight.is_floating_point() else weight
            for name, weight in load_file(plain).items()
        }
        save_file(half, plain.with_suffix(f".{variant}.safetensors"), {"format": "pt"})


def save_vae(folder: Path, scaling_factor: float) -> Path:
    """Write a VAE of two levels, of images twice as large as its latents."""
    from diffusers import AutoencoderKL  # noqa: PLC0415

    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    AutoencoderKL(
        block_out_channels=[8, 8],
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        latent_channels=4,
        **blocks,
    ).save_pretrained(folder)
    return folder


class TinyInception(nn.Module):
    """The parts of inception-2015-12-05.pt that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.layers(img)


def save_inception(folder: Path) -> Path:
    """Write it with random weights, under its own name."""
    folder.mkdir()
    torch.manual_seed(0)
    torch.jit.script(TinyInception().eval()).save(str(folder / "inception-2015-12-05.pt"))
    return folder


def save_clip(folder: Path) -> Path:
    """Write a `CLIPModel` for images of 8x8, and its tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig  # noqa: PLC0415

    text = tiny_clip(["a", "red", "dot"], hidden_size=16, num_layers=2, max_length=16)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8,
        patch_size=4,
    )
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text.models[0].config.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    text.tokenizers[0].save_pretrained(folder)
    return folder
