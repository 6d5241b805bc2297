"""Means over ranks of one network's gradients and of the numbers logged beside them, in a single
pass; the norm.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

BUCKET_BYTES = 2**28


def mean_over_ranks(
    parameters: Iterable[nn.Parameter], numbers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Make gradients, in place, their means over all ranks; the means of `numbers` [], which ride
    in the last bucket.

    A number that is not finite on one rank is not finite in the mean: all ranks come to the same
    verdict. ShardedStrategy of
    gradients are means already.
    """
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient for gradient in found if not isinstance(gradient, DTensor)]
    told = torch.stack([number.detach().float() for number in numbers.values()])
    for bucket in buckets([*gradients, told], BUCKET_BYTES):
        flat = torch.cat([tensor.flatten() for tensor in bucket]).div_(distributed.get_world_size())
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in bucket])
        torch._foreach_copy_(
            bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)]
        )
    return dict(zip(numbers, told, strict=True))


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients, in place, to a global L2 norm of at most `max_norm`; the norm [] before,
    over all shards.
    """
    own = list(parameters)
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in own if parameter.grad is not None]
    )
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    nn.utils.clip_grads_with_norm_(own, max_norm, norm)
    return norm


def buckets(tensors: Iterable[Tensor], num_bytes: int) -> Iterator[list[Tensor]]:
    """Neighbours together, up to `num_bytes` where a single one is not larger: what is copied at a
    time.
    """
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(part.nbytes for part in bucket) + tensor.nbytes > num_bytes:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket
