"""Cards by name, and an estimate of an iteration's time on one: no measurement, a roofline."""

from dataclasses import dataclass

from dmd2.planning.watch import Work
from dmd2.runs.memory import GIB

EFFICIENCY = 0.6
"""Part of a data sheet's FLOP/s and bandwidth that kernels are taken to reach."""
LAUNCH_SECONDS = 7e-6
"""Time to launch one kernel from Python."""


@dataclass(frozen=True)
class Card:
    """A data sheet: dense bfloat16 [FLOP/s] with float32 sums, bandwidth [B/s], memory [B]."""

    name: str
    flops: float
    bandwidth: float
    memory: float

    def seconds(self, work: Work) -> float:
        """Time of an iteration: computing and moving bytes, or launching if that takes longer.

        Every operation reads and writes the card's memory: nothing is fused.
        """
        busy = work.flops / self.flops + work.num_bytes / self.bandwidth
        return max(busy / EFFICIENCY, work.num_operations * LAUNCH_SECONDS)


CARDS = (
    Card("L4", 121e12, 0.30e12, 24e9),
    Card("RTX 4090", 165e12, 1.01e12, 24 * GIB),
    Card("A100 80GB", 312e12, 2.04e12, 80 * GIB),
    Card("H100 SXM", 989e12, 3.35e12, 80 * GIB),
    Card("H200", 989e12, 4.8e12, 141e9),
)
