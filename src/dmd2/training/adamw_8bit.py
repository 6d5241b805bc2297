"""AdamW with 8-bit moments (Dettmers et al. 2022, arXiv:2110.02861), by torchao: 2 bytes of
optimizer state a weight in place of 8.
"""

from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer


def require_torchao() -> type[Optimizer]:
    """Torchao's `AdamW8bit`; raises ImportError where the package is missing."""
    try:
        from torchao.optim import AdamW8bit  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "optimizer=adamw_8bit needs torchao; type in the checkout: "
            "make install EXTRAS=dev,low_memory, or pip install '.[low_memory]'"
        ) from error
    return cast(type[Optimizer], AdamW8bit)


def adamw_8bit(
    params: Iterable[nn.Parameter],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """The optimizer; moments of at least 4096 numbers are quantized in blocks of 256.

    Raises ImportError where torchao is missing.
    """
    make: Any = require_torchao()
    optimizer: Optimizer = make(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return optimizer
