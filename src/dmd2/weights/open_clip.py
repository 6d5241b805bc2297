"""CLIPs as the package open_clip saves them, under the names of transformers' CLIPModel."""

import re
from pathlib import Path

from torch import Tensor

from dmd2.weights.authors import named_tensors, read_saved, renamed

# open_clip's name of a tensor or of a layer, to that of transformers; the first that fits.
NAMES = {
    "visual.proj": "visual_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",  # so spelled there
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "text_projection": "text_projection.weight",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "logit_scale": "logit_scale",
}
LAYERS = {
    ".ln_": ".layer_norm",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}
"""The same inside a layer of either transformer."""


def read_open_clip(path: Path) -> dict[str, Tensor]:
    """The tensors of a CLIPModel from a checkpoint of open_clip's; only tensors are unpickled.

    Raises ValueError where the file is damaged or is of another network.
    """
    content = read_saved(path)
    found = named_tensors(path, content.get("state_dict") if isinstance(content, dict) else None)
    return {
        name: tensor for item in found.items() for name, tensor in _renamed(path, *item).items()
    }


def _renamed(path: Path, name: str, tensor: Tensor) -> dict[str, Tensor]:
    start, ours = renamed(path, name, NAMES, LAYERS, "CLIP of open_clip's")
    # open_clip multiplies by its projections from the right, and keeps them as such.
    if start in ("visual.proj", "text_projection"):
        return {ours: tensor.T}
    if fused := re.fullmatch(r"(.*)in_proj_(weight|bias)", ours):
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{fused[1]}{letter}_proj.{fused[2]}": part.clone() for letter, part in parts}
    return {ours: tensor}
