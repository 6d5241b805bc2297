"""Conditions of a text teacher without its encoder: nothing has to be downloaded to see what a
U-Net costs.
"""

from typing import Any

import torch

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.randomness import seeded

NUM_PROMPTS, NUM_SIZES = 8, 6


class RandomPrompts(Conditioner):
    """N(0, 1) of the shape that a `UNet2DConditionModel` of this `config` reads; each its own
    unconditional twin.
    """

    num_classes = NUM_PROMPTS

    def __init__(self, config: Any, num_tokens: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {"text": (num_tokens, config.cross_attention_dim)}
        if (width := config.addition_time_embed_dim) is not None:  # SDXL's
            pooled = config.projection_class_embeddings_input_dim - NUM_SIZES * width
            shapes |= {"pooled": (pooled,), "time_ids": (NUM_SIZES,)}
        self.parts = tuple(shapes)
        with seeded(0, "prompts"):
            for name, shape in shapes.items():
                self.register_buffer(name, torch.randn(NUM_PROMPTS, *shape), persistent=False)

    def forward(self, labels: torch.Tensor) -> Cond:
        return {name: self.get_buffer(name)[labels] for name in self.parts}

    def null(self, cond: Cond) -> Cond:
        return cond
