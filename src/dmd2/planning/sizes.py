"""Networks of published pipelines that a plan counts and a config does not describe: text encoders,
VAEs, and the detectors of scores.
"""

from collections import Counter

from torch import nn

from dmd2.config.check import Config
from dmd2.nets.autoencoder import VAE
from dmd2.runs.build import build

CLIP_L, CLIP_L_PROJECTED, CLIP_BIG_G = 123_060_480, 123_650_304, 694_659_840
T5_XXL, GEMMA_2B, QWEN_VL_7B, QWEN_4B = 4_762_310_656, 2_614_341_888, 8_292_166_656, 4_022_468_096
TEXT = {
    "clip": CLIP_L,
    "clip_pair": CLIP_L + CLIP_BIG_G,
    "sd3_text": CLIP_L_PROJECTED + CLIP_BIG_G + T5_XXL,
    "flux_text": CLIP_L + T5_XXL,
    "chroma_text": T5_XXL,
    "pixart_text": T5_XXL,
    "sana_text": GEMMA_2B,
    "qwen_image_text": QWEN_VL_7B,
    "zimage_text": QWEN_4B,
}
"""Parameters of text encoders by the last name of their node."""
DETECTORS = {
    "CleanInception": 23_900_000,
    "CleanFidInception": 23_900_000,
    "ClipImages": 1_366_678_273,
    "BlipImages": 446_206_689,
}
"""Parameters of a score's networks; ClipImages and BlipImages with the text halves that their
metrics read, the first of the largest CLIP that conf/metric names.
"""
KL = {
    "_target_": "diffusers.AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
"""The VAE of Stable Diffusion, SDXL, SD3 and FLUX.1, which differ in the latents' channels."""
OTHERS: dict[str, Config] = {
    "AutoencoderKLQwenImage": {"_target_": "diffusers.AutoencoderKLQwenImage"},
    "AutoencoderKLFlux2": {"_target_": "diffusers.AutoencoderKLFlux2"},
}
"""Those of Qwen-Image and FLUX.2, by class: diffusers' defaults are theirs."""


def last_name(node: Config) -> str:
    """The name of what a node calls, without its module."""
    return str(node["_target_"].rpartition(".")[2])


def text_bytes(config: Config) -> int | None:
    """Bytes of the text encoders; 0 where there are none, None where they are not known."""
    node = config["teacher"]["conditioner"].get("encoder")
    if node is None:
        return 0
    num = TEXT.get(last_name(node))
    width = 2 if node.get("dtype") in ("bfloat16", "float16") else 4
    return None if num is None else width * num


def is_encoding(config: Config) -> bool:
    """Whether text encoders are on the device in training: their captions have no table."""
    conditioner = config["teacher"]["conditioner"]
    return "encoder" in conditioner and conditioner.get("cache") is None


def detector_bytes(config: Config) -> int:
    """Bytes of the networks that a score reads, as far as they are known."""
    nodes = config["metric"]["suite"]["detectors"].values()
    return sum(4 * DETECTORS.get(last_name(node), 0) for node in nodes if node is not None)


def autoencoder_node(vae: VAE) -> Config | None:
    """The node of a VAE's network of its published shape; None where that is not known."""
    return (OTHERS | {VAE.kind: KL | {"latent_channels": vae.channels}}).get(vae.kind)


def autoencoder_of(section: Config) -> VAE | None:
    """A teacher section's VAE, with random weights; None where the teacher makes pixels, or its
    shape is not known.
    """
    vae: VAE | None = build(section["autoencoder"]) if section.get("autoencoder") else None
    if vae is None or (node := autoencoder_node(vae)) is None:
        return None
    # Not diffusers' own `to`, which warns of every cast.
    vae.network = nn.Module.to(build(node), vae.dtype).requires_grad_(False).eval()
    return vae


def with_text(config: Config, peak: Counter[str]) -> Counter[str]:
    """The peak of training with text encoders, where they are on the device."""
    return peak + Counter({"text encoders": is_encoding(config) * (text_bytes(config) or 0)})


def with_encoding(config: Config, peak: Counter[str], kept: Counter[str]) -> Counter[str]:
    """The peak of a grid or a score, which text encoders that are on the host precede where the
    metric has captions of its own: they come while these are encoded, beside what is `kept`.
    """
    if is_encoding(config) or config["metric"].get("captions") is None:
        return with_text(config, peak)
    encoding = kept + Counter({"text encoders": text_bytes(config) or 0})
    return max(peak, encoding, key=Counter.total)
