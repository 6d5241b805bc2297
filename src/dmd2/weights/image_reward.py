"""ImageReward as its authors save it, under the names of transformers' networks of BLIP."""

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from dmd2.weights.authors import read_checkpoint, renamed

# Their name of a tensor or of a layer, to the part of the network and its name there; the first
# that fits.
NAMES = {
    "blip.visual_encoder.cls_token": "vision.embeddings.class_embedding",
    "blip.visual_encoder.pos_embed": "vision.embeddings.position_embedding",
    "blip.visual_encoder.patch_embed.proj.": "vision.embeddings.patch_embedding.",
    "blip.visual_encoder.norm.": "vision.post_layernorm.",
    "blip.visual_encoder.blocks.": "vision.encoder.layers.",
    "blip.text_encoder.": "text.",
    "mlp.layers.": "reward.",
}
LAYERS = {".attn.proj.": ".self_attn.projection.", ".attn.": ".self_attn.", ".norm": ".layer_norm"}
"""The same inside a layer of the vision transformer."""
UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|.*\.position_ids$")
"""BLIP's contrastive heads, and positions that are computed."""
HEAD_WIDTH = 64  # of both transformers, at any size


def read_image_reward(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of ImageReward.pt: those of its "vision", "text" and "reward".

    Only tensors are unpickled. Raises ValueError where the file is damaged or is of another
    network; that it is whole is not checked.
    """
    found: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "reward": {}}
    for name, tensor in read_checkpoint(path).items():
        if not UNUSED.match(name):
            part, _, ours = renamed(path, name, NAMES, LAYERS, "ImageReward")[1].partition(".")
            found[part][ours] = tensor
    return found


def vision_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of transformers' BlipVisionConfig, by the tensors' shapes."""
    width, _, side, _ = tensors["embeddings.patch_embedding.weight"].shape
    num_patches = tensors["embeddings.position_embedding"].shape[1] - 1
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors["encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _num_layers(tensors, "encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "image_size": side * isqrt(num_patches),
        "patch_size": side,
        "layer_norm_eps": 1e-6,
    }


def text_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of transformers' BlipTextConfig, by the tensors' shapes."""
    num_words, width = tensors["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": num_words,
        "hidden_size": width,
        "encoder_hidden_size": tensors["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        "intermediate_size": len(tensors["encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": _num_layers(tensors, "encoder.layer."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": len(tensors["embeddings.position_embeddings.weight"]),
        "layer_norm_eps": 1e-12,
        "is_decoder": True,  # with attention to the image
    }


def reward_sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """The widths, in and out, of the linear layers by name."""
    layers = sorted({int(name.split(".")[0]) for name in tensors})
    weights = {str(layer): tensors[f"{layer}.weight"] for layer in layers}
    return {layer: (weight.shape[1], len(weight)) for layer, weight in weights.items()}


def _num_layers(tensors: Mapping[str, Tensor], start: str) -> int:
    names = [name.removeprefix(start) for name in tensors if name.startswith(start)]
    return 1 + max(int(name.split(".")[0]) for name in names)
