"""The norm of an update against that of the weights, from a few weights of a few tensors.

The learning rate is too high where an update moves them by some hundredths of their norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

NUM_TENSORS = 8
NUM_WEIGHTS = 256
"""Of so many tensors so many weights are looked at: the cost is the same for any network."""


def sketch(optimizer: Optimizer) -> Tensor:
    """A copy of some of an optimizer's weights [N], float32; of shards, of this rank's own."""
    return some_of([p for group in optimizer.param_groups for p in group["params"]])


def some_of(weights: Sequence[Tensor]) -> Tensor:
    """A copy of some of all weights [N], float32; of shards, of this rank's own."""
    # Evenly spaced, so that the first and the last layers are among them.
    some = weights[:: -(-len(weights) // NUM_TENSORS)]
    local = (p.to_local() if isinstance(p, DTensor) else p for p in some)
    return torch.cat([p.detach().flatten()[:NUM_WEIGHTS].float() for p in local])


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """The norm [] of the change over that of the weights [N] before it.

    >>> relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    tensor(0.1000)
    """
    return (after - before).norm() / before.norm().clamp_min(1e-12)
