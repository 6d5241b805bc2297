"""Random text embeddings in place of a text encoder: a U-Net's cost without any download."""

from typing import Any

import torch

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.randomness import seeded

NUM_PROMPTS = 8
NUM_SIZES = 6  # SDXL's time_ids: original size, crop corner and target size, two numbers each


class RandomPrompts(Conditioner):
    """Conditions drawn from N(0, 1), in the shapes that a `UNet2DConditionModel` reads.

    config      The U-Net's.
    num_tokens  Tokens of a prompt.
    """

    num_classes = NUM_PROMPTS

    def __init__(self, config: Any, num_tokens: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {"text": (num_tokens, config.cross_attention_dim)}
        if (width := config.addition_time_embed_dim) is not None:
            # SDXL: its embedding takes the pooled text and the embedded sizes side by side.
            pooled = config.projection_class_embeddings_input_dim - NUM_SIZES * width
            shapes |= {"pooled": (pooled,), "time_ids": (NUM_SIZES,)}
        self.parts = tuple(shapes)
        with seeded(0, "prompts"):
            # Buffers that no checkpoint holds; they go where the module goes.
            for name, shape in shapes.items():
                self.register_buffer(name, torch.randn(NUM_PROMPTS, *shape), persistent=False)

    def forward(self, labels: torch.Tensor) -> Cond:
        """Labels int64 [B] to {"text": [B, L, D]}, with "pooled" and "time_ids" for SDXL."""
        return {name: self.get_buffer(name)[labels] for name in self.parts}

    def null(self, cond: Cond) -> Cond:
        """`cond` itself: guidance then costs what it always does, and changes nothing."""
        return cond
