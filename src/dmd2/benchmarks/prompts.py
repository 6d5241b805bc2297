"""Random conditions in place of labels and text encoders: a network's cost, no download."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.randomness import seeded
from dmd2.runs.build import build

NUM_PROMPTS = 8
CLIP_TOKENS = 77  # the context length of CLIP


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
        # Of its text encoder's node the number of tokens alone is read.
        encoder = node["encoder"]
        length = encoder.get("length") or encoder.get("max_length") or CLIP_TOKENS
        return RandomConditions(denoiser.shapes(length))
    cond = build(node)(torch.zeros(1, dtype=torch.long))
    return RandomConditions({name: tuple(value.shape[1:]) for name, value in cond.items()})
