"""Gradient checkpointing: what a block's graph keeps, and what its backward pass computes again."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Checkpointing = bool | Literal["selective"]
"""How much of a block is computed again: nothing, all of it (Chen et al. 2016), or, selectively,
what is cheap: norms, activations, resampling, casts.
"""

aten = torch.ops.aten
PRODUCTS = frozenset(
    {
        aten.convolution.default,
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""The expensive operations, whose results the selective way keeps."""


def checkpointed(
    block: Callable[..., Tensor], how: Checkpointing, *args: Any, **kwargs: Any
) -> Tensor:
    """block(*args, **kwargs), and in its graph no more than `how` says."""
    # Without a graph nothing is kept anyway, and the selective way would keep it all the same.
    if not how or not torch.is_grad_enabled():
        return block(*args, **kwargs)
    run = partial(checkpoint, block, *args, use_reentrant=False, **kwargs)
    # Dynamo takes no context that a variable names.
    return run(context_fn=selective_contexts) if how == "selective" else run()


def keep_products(_: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """The policy of the selective way, of one operation."""
    return CheckpointPolicy.MUST_SAVE if op in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


selective_contexts = partial(create_selective_checkpoint_contexts, keep_products)
