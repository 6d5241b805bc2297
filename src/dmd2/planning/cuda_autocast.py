"""CUDA's rules of autocast on the CPU, so that a dry run casts what a GPU would.

torch's autocast on the CPU lets norms, softmax and sums run in bfloat16, which on CUDA run in
float32, and that is most of what a graph in mixed precision keeps in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FLOAT32 = (
    *("group_norm", "layer_norm", "native_layer_norm", "cosine_similarity", "softplus"),
    *("softmax.int", "log_softmax.int", "cumsum", "sum", "sum.dim_IntList"),
    *("norm.Scalar", "linalg_vector_norm", "upsample_nearest2d", "upsample_bilinear2d"),
    *("exp", "log", "log1p", "rsqrt", "reciprocal", "pow.Tensor_Scalar", "pow.Tensor_Tensor"),
)
"""What CUDA's autocast casts to float32 and the CPU's does not (torch, ATen/autocast_mode.h)."""
NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """A block in which autocast on the CPU has CUDA's rules."""
    # Kernels are registered for as long as the library lives.
    library = torch.library.Library("aten", "IMPL")
    for name in FLOAT32:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
        library.impl(name, in_float32(operation), "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


def in_float32(operation: Any) -> Callable[..., Any]:
    """An operation that casts what is narrower to float32 first."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def cast(x: Any) -> Any:
        return x.float() if isinstance(x, Tensor) and x.dtype in NARROW else x

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*map(cast, args), **{name: cast(x) for name, x in kwargs.items()})

    return kernel
