"""Learning-rate schedules as factors of the iteration, for torch's LambdaLR."""

import math


class Constant:
    """The same learning rate all along."""

    def __call__(self, iteration: int) -> float:
        """1 at every iteration."""
        return 1.0


class WarmupCosine:
    """Linear warm-up, then constant, then cosine decay to 0.

    max_iterations  Where the decay ends.
    warmup          Iterations of the warm-up; 0 is none.
    decay_from      Share of `max_iterations` at which the decay begins; 1.0 is no decay.
    """

    def __init__(self, max_iterations: int, warmup: int = 0, decay_from: float = 1.0) -> None:
        self.max_iterations, self.warmup, self.decay_from = max_iterations, warmup, decay_from

    def __call__(self, iteration: int) -> float:
        """The factor at an iteration, counted from 0."""
        factor = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        start = self.decay_from * self.max_iterations
        if iteration > start:
            decay_length = self.max_iterations - start
            factor *= 0.5 + 0.5 * math.cos(math.pi * (iteration - start) / decay_length)
        return factor
