"""Exponential moving averages (EMA) of a network's weights, in float32 whatever its precision."""

import copy
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import nn


class EMA(nn.Module):
    """Averages of `model`, one a decay: mean <- decay mean + (1 - decay) weights, an `update`.

    Frozen weights and buffers are not averaged: every average holds the model's own tensors.
    Raises ValueError where a decay does not lie between 0 and 1.
    """

    def __init__(self, model: nn.Module, decays: Sequence[float]) -> None:
        super().__init__()
        for decay in decays:
            if not 0 < decay < 1:
                raise ValueError(
                    f"an EMA decay lies between 0 and 1, got {decay}; e.g. ema=[0.999]"
                )
        self.decays = {f"ema_{decay:g}": decay for decay in decays}
        # deepcopy takes what its memo holds for copied already: frozen tensors so are shared.
        shared = {id(x): x for x in (*model.parameters(), *model.buffers()) if not x.requires_grad}
        copies = [copy.deepcopy(model, dict(shared)) for _ in self.decays]
        self.models = nn.ModuleList(copies).requires_grad_(False).eval()
        # An average kept in bfloat16 would never move: 0.9999 times a weight rounds back to it.
        # Buffers stay what they are: VP's table is float64.
        for weights in self.models.parameters():
            weights.data = weights.data.float()

    def named(self) -> dict[str, Any]:
        """The averaged networks by name, e.g. "ema_0.999"; each is what `model` is."""
        return dict(zip(self.decays, self.models, strict=True))

    def init_from(self, model: nn.Module) -> None:
        """Set every average to the model's weights."""
        for mean in self.models:
            mean.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move every average towards the model's weights."""
        if not self.decays:
            return
        # With LoRA only the small weights move; the frozen ones are the model's own tensors.
        moved = [p.requires_grad for p in model.parameters()]
        weights = [p.detach().float() for p in compress(model.parameters(), moved)]
        for decay, mean in zip(self.decays.values(), self.models, strict=True):
            # mean + (1 - decay) (weights - mean), for all weights in a few kernels.
            torch._foreach_lerp_(list(compress(mean.parameters(), moved)), weights, 1 - decay)
