"""Features of a pass: what tapped layers gave, kept by forward hooks that stay on the layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def caught(network: Any, taps: Sequence[str]) -> Iterator[list[Tensor]]:
    """A block that records the outputs of the layers called `taps` in one pass, in their order.

    The list is filled when the block ends. Raises ValueError where a tapped layer did not run.
    """
    layers: list[Any] = [network.get_submodule(tap) for tap in taps]
    features: list[Tensor] = []
    for layer in layers:
        # By hook and not by a copied forward, so that networks of other packages can be tapped. One
        # hook for ever, since a compiled pass is not told of hooks that come and go.
        if not hasattr(layer, "caught"):
            layer.register_forward_hook(keep_output)
        layer.caught = []
    try:
        yield features
        if beyond := [tap for tap, layer in zip(taps, layers, strict=True) if not layer.caught]:
            raise ValueError(f"the encoder ends before the layer {beyond[0]!r}; tap one of its own")
        features.extend(layer.caught[-1] for layer in layers)
    finally:
        # Also after an error: what stayed would keep the pass's graph.
        for layer in layers:
            layer.caught = None


def keep_output(layer: Any, _inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the layer gave, in the layer itself, while a block of `caught` is open.

    A copy of the layer so keeps what it gives itself.
    """
    if layer.caught is not None:
        layer.caught.append(output)
