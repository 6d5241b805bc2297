"""torch.compile in place: methods of modules are replaced, and no weight changes its name."""

import copy
from functools import update_wrapper
from types import MethodType
from typing import Any

import torch

from dmd2.diffusion.denoiser import Denoiser

MOST_VARIANTS = 256
"""Graphs that one method may have. torch's 8 are too few: a U-Net's blocks share the method, and
each width and each number of rows, with and without gradients, has a graph of its own."""


class _CompiledMethod:
    """A module's method, compiled when it is first called.

    A deep copy of the module gets one for its own weights. Hooks of the module run outside of it.
    """

    def __init__(self, module: Any, name: str, backend: str) -> None:
        self.module, self.name, self.backend = module, name, backend
        # Of the class, not of the instance, where a compiled one may stand already.
        method = MethodType(getattr(type(module), name), module)
        update_wrapper(self, method)  # its signature
        self.compiled = torch.compile(method, backend=backend)
        torch._dynamo.config.recompile_limit = MOST_VARIANTS

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method gives."""
        return self.compiled(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_CompiledMethod":
        # The module is being copied, so that the memo has its copy. The bound method alone would
        # run the original's weights.
        return _CompiledMethod(copy.deepcopy(self.module, memo), self.name, self.backend)


def methods(denoiser: Denoiser, parts: str | None) -> list[tuple[Any, str]]:
    """The methods to compile of a denoiser's network, as (module, name).

    parts  "blocks", each by itself, "halves", or None for nothing.

    Raises ValueError for another word, and where the network has no such parts.
    """
    blocks, halves = denoiser.blocks(), denoiser.halves
    choices = {
        None: [],
        "blocks": [(block, "forward") for block in blocks],
        "halves": [(denoiser.model, name) for name in halves],
    }
    if parts not in choices:
        raise ValueError(f"compile must be blocks, halves or null, got {parts!r}")
    if parts is not None and not choices[parts]:
        others = [name for name, found in choices.items() if found]
        raise ValueError(
            f"a {type(denoiser.model).__name__} has no {parts}; type compile={(*others, 'null')[0]}"
        )
    return choices[parts]


def compile_in_place(denoiser: Denoiser, parts: str | None, backend: str = "inductor") -> None:
    """Compile the parts of a denoiser's network that `methods` says."""
    for module, name in methods(denoiser, parts):
        setattr(module, name, _CompiledMethod(module, name, backend))
