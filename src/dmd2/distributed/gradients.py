"""All-reduce of one network's gradients, in buckets, with the numbers logged beside them; clipping.

Both are of an update: all shares of an accumulated batch are in its gradients.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

T = TypeVar("T", bound=Tensor)
BUCKET_BYTES = 2**26  # few calls, and many buckets of a network that is worth the overlap


class MeanOverRanks:
    """Replaces a network's gradients, in place, by their means over all ranks.

    Buckets of neighbouring parameters are sent in a fixed order, the last layers first, as the
    backward pass reaches them; inside `sending` while that pass goes on. One bucket is on its way
    at a time: no more is in memory twice.

    dtype  Of gradients on the wire. In bfloat16 half the bytes are sent.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], dtype: torch.dtype = torch.float32
    ) -> None:
        # FSDP2's reduce-scatter has averaged sharded gradients in the backward pass already.
        own = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
        self.dtype = dtype
        # The order is that of the parameters and not that in which gradients come: it is the same
        # on all ranks whatever the graph is.
        self._waiting = list(buckets(reversed(own), BUCKET_BYTES))
        self._missing = set(self._waiting[0])
        self._arrived: set[Tensor] = set()
        self._sent: tuple[distributed.Work, Tensor, list[Tensor]] | None = None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """The block of an update's last backward pass: a bucket is sent as soon as it is full."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(self._arrive)
            for bucket in self._waiting
            for parameter in bucket
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Send what is left; returns the means of `numbers`, of one shape, over all ranks.

        They go in the last bucket, so they cost no all-reduce of their own, unless its dtype is
        another one: they stay float32. A number that is not finite on one rank is not finite in the
        mean, so all ranks decide alike to skip an update.
        """
        logged = torch.stack([number.detach().float() for number in numbers.values()])
        # In the very buckets of `sending`: what a rank has sent of them by now may differ.
        *others, last = ([p.grad for p in bucket if p.grad is not None] for bucket in self._waiting)
        for gradients in others:
            self._send(gradients, self.dtype)
        if self.dtype == torch.float32:
            self._send([*last, logged], self.dtype)
        else:
            self._send([logged], torch.float32)
            self._send(last, self.dtype)
        self._receive()
        return dict(zip(numbers, logged, strict=True))

    def _arrive(self, parameter: Tensor) -> None:
        """A gradient is complete: send the buckets that now are."""
        self._arrived.add(parameter)
        self._missing.discard(parameter)
        # Not the last one: the numbers go with it.
        while not self._missing and len(self._waiting) > 1:
            self._send([p.grad for p in self._waiting.pop(0) if p.grad is not None], self.dtype)
            self._missing = set(self._waiting[0]) - self._arrived

    def _send(self, bucket: list[Tensor], dtype: torch.dtype) -> None:
        """Begin to replace tensors by their means over all ranks, in one all-reduce of a dtype."""
        self._receive()
        if not bucket:  # weights without a gradient
            return
        # Divided before the sum, as torch's DDP does.
        flat = torch.cat([tensor.flatten() for tensor in bucket]).div_(distributed.get_world_size())
        flat = flat.to(dtype)
        self._sent = distributed.all_reduce(flat, async_op=True), flat, bucket

    def _receive(self) -> None:
        """Wait for what is on its way; on a GPU the device does, and not the host."""
        if self._sent is None:
            return
        work, flat, bucket = self._sent
        work.wait()
        parts = flat.split([tensor.numel() for tensor in bucket])
        # One fused copy a bucket in place of a kernel for each tensor.
        torch._foreach_copy_(
            bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)]
        )
        self._sent = None


class OneRank:
    """What a rank that is alone has in place of `MeanOverRanks`: its own are the means."""

    def sending(self) -> AbstractContextManager[None]:
        """A block in which nothing is sent."""
        return nullcontext()

    def finish(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers as they are."""
        return dict(numbers)


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


def buckets(tensors: Iterable[T], num_bytes: int) -> Iterator[list[T]]:
    """Group neighbouring tensors into buckets of at most `num_bytes`.

    A single tensor that is larger has a bucket of its own.
    """
    bucket: list[T] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > num_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    yield bucket
