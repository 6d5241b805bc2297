"""All-reduce of one network's gradients, in buckets, with the numbers logged beside them; clipping.

Both are called once an update, after the last share of an accumulated batch.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

BUCKET_BYTES = 2**28  # few calls, and a copy that is small beside a network


def mean_over_ranks(
    parameters: Iterable[nn.Parameter],
    numbers: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Replace gradients, in place, by their means over all ranks; return the means of `numbers` [].

    The numbers go in the last bucket, so they cost no all-reduce of their own. A number that is
    not finite on one rank is not finite in the mean, so all ranks decide alike to skip an update.

    dtype  Of gradients on the wire. In bfloat16 half the bytes are sent, and the numbers, which
           stay float32, by themselves.
    """
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # FSDP2's reduce-scatter has averaged sharded gradients in the backward pass already.
    gradients = [gradient for gradient in found if not isinstance(gradient, DTensor)]
    logged = torch.stack([number.detach().float() for number in numbers.values()])
    if dtype == torch.float32:
        gradients.append(logged)
    else:
        _mean([logged], torch.float32)
    for bucket in buckets(gradients, BUCKET_BYTES):
        _mean(bucket, dtype)
    return dict(zip(numbers, logged, strict=True))


def _mean(bucket: list[Tensor], dtype: torch.dtype) -> None:
    """Replace tensors, in place, by their means over all ranks, in one all-reduce of a dtype."""
    # Divided before the sum, as torch's DDP does.
    flat = torch.cat([tensor.flatten() for tensor in bucket]).div_(distributed.get_world_size())
    flat = flat.to(dtype)
    distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in bucket])
    # One fused copy a bucket in place of a kernel for each tensor.
    torch._foreach_copy_(
        bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)]
    )


def clip(parameters: Iterable[nn.Parameter], max_norm: float, optimizer: Optimizer) -> Tensor:
    """Let the optimizer's next step scale gradients to a global L2 norm of at most `max_norm`.

    Returns the norm [] before that, over all shards.
    """
    own = list(parameters)  # it may be a generator, and is read twice
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in own if parameter.grad is not None]
    )
    # Of sharded gradients the norm is a DTensor that still lacks the sum over shards.
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if optimizer.defaults.get("fused"):
        # Its kernel divides by this, with torch's own small number against a norm of zero: no pass
        # over the gradients for it, and no wait to see whether one is needed.
        optimizer.grad_scale = ((norm + 1e-6) / max_norm).clamp_min(1.0)  # type: ignore[attr-defined]
    else:
        nn.utils.clip_grads_with_norm_(own, max_norm, norm)
    return norm


def buckets(tensors: Iterable[Tensor], num_bytes: int) -> Iterator[list[Tensor]]:
    """Group neighbouring tensors into buckets of at most `num_bytes`.

    A single tensor that is larger has a bucket of its own.
    """
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(part.nbytes for part in bucket) + tensor.nbytes > num_bytes:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket
