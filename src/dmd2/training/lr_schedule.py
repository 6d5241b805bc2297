"""Learning-rate schedules as factors of the iteration, for torch's LambdaLR."""

import math


class WarmupCosine:
    """Linear warm-up over `warmup` iterations; constant; cosine decay to 0 from `decay_from` (a
    share) to the end.
    """

    def __init__(self, max_iterations: int, warmup: int = 0, decay_from: float = 1.0) -> None:
        self.max_iterations, self.warmup, self.decay_from = max_iterations, warmup, decay_from

    def __call__(self, iteration: int) -> float:
        factor = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        start = self.decay_from * self.max_iterations
        if iteration > start:
            factor *= 0.5 + 0.5 * math.cos(
                math.pi * (iteration - start) / (self.max_iterations - start)
            )
        return factor
