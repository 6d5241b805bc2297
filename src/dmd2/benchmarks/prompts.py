"""Random conditions in place of labels and text encoders: a network's cost, no download."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.unet import UNet
from dmd2.randomness import seeded
from dmd2.runs.build import build

NUM_PROMPTS = 8
NUM_SIZES = 6  # SDXL's time_ids: original size, crop corner and target size, two numbers each
CLIP_TOKENS = 77  # the context length of CLIP
TEXT_WIDTHS = ("caption_channels", "cap_feat_dim", "joint_attention_dim", "cross_attention_dim")
"""What families call the width of the text that they read; the first of a config counts."""


class RandomConditions(Conditioner):
    """Conditions drawn from N(0, 1), of the shapes that a network reads; a mask keeps all.

    shapes  Of one row, by the condition's key.
    """

    num_classes = NUM_PROMPTS

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.parts = tuple(shapes)
        with seeded(0, "prompts"):
            # Buffers that no checkpoint holds; they go where the module goes.
            for name, shape in shapes.items():
                rows = torch.randn(NUM_PROMPTS, *shape)
                if name == "mask":
                    rows = torch.ones(rows.shape, dtype=torch.bool)
                self.register_buffer(name, rows, persistent=False)

    def forward(self, labels: Tensor) -> Cond:
        """Labels int64 [B] to {"text": [B, L, D]} and what else the network reads."""
        return {name: self.get_buffer(name)[labels] for name in self.parts}

    def null(self, cond: Cond) -> Cond:
        """`cond` itself: guidance then costs what it always does, and changes nothing."""
        return cond


def random_conditions(denoiser: Denoiser, node: Mapping[str, Any]) -> RandomConditions:
    """Conditions in place of those of a conditioner's node, of which no text encoder is built."""
    if isinstance(denoiser, DiffusersNet) and "encoder" in node:
        return random_prompts(denoiser, node["encoder"])
    cond = build(node)(torch.zeros(1, dtype=torch.long))
    return RandomConditions({name: tuple(value.shape[1:]) for name, value in cond.items()})


def random_prompts(denoiser: DiffusersNet, encoder: Mapping[str, Any]) -> RandomConditions:
    """The prompts of a network that reads text.

    encoder  The node of its text encoder, of which only the number of tokens is read.
    """
    config = denoiser.model.config
    length = encoder.get("length") or encoder.get("max_length") or CLIP_TOKENS
    width = next(config[name] for name in TEXT_WIDTHS if config.get(name) is not None)
    shapes: dict[str, tuple[int, ...]] = {"text": (length, width)}
    if not isinstance(denoiser, UNet):
        shapes["mask"] = (length,)
    if (pooled := config.get("pooled_projection_dim")) is not None:
        shapes["pooled"] = (pooled,)
    if (sizes := config.get("addition_time_embed_dim")) is not None:
        # SDXL: its embedding takes the pooled text and the embedded sizes side by side.
        shapes["pooled"] = (config["projection_class_embeddings_input_dim"] - NUM_SIZES * sizes,)
        shapes["time_ids"] = (NUM_SIZES,)
    return RandomConditions(shapes)
