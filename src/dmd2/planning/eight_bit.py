"""The memory of AdamW with 8-bit moments, without the package that computes it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LEAST, BLOCK, MAP = 4096, 256, 256
"""torchao quantizes tensors of at least so many numbers, in blocks that share a scale, by a table
of so many values (torchao/optim, 0.18).
"""


class PlannedAdamW8bit(Optimizer):
    """In the place of `dmd2.training.adamw_8bit`: keeps the same bytes, and steps nowhere.

    Arguments are those of that function.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, **_: Any) -> None:
        # As if fused: a plan has no number that the host could read to skip a step.
        super().__init__(params, {"lr": lr, "fused": True})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make the states, once."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and not self.state[p]:
                    self.state[p] = moments(p)


def moments(p: Tensor) -> dict[str, Tensor]:
    """The optimizer's two moments of a parameter, as the tensors that hold them."""
    if p.numel() < LEAST or p.numel() % BLOCK:
        return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
    found = {}
    for name in ("mean", "square"):
        found[f"{name} codes"] = p.new_zeros(p.shape, dtype=torch.uint8)
        found[f"{name} scale"] = p.new_zeros(p.numel() // BLOCK, dtype=torch.float32)
        found[f"{name} map"] = p.new_zeros(MAP, dtype=torch.float32)
    return found
