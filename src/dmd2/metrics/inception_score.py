"""Inception score of Salimans et al. 2016 (arXiv:1606.03498), section 4: sharp in each image,
varied over all.
"""

import math

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures
from dmd2.randomness import generator


class InceptionScore(StoredFeatures):
    """exp of the mean KL(p(y | x) || p(y)), the mean over `num_splits` random parts: "is", higher
    is better.

    Reads logits, or logarithms of probabilities, which a softmax leaves as they are. The parts
    depend on `seed`
    alone. The data does not enter.
    """

    def __init__(
        self, detector: str, num_splits: int = 10, seed: int = 0, prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        self.num_splits, self.seed = num_splits, seed

    def compute(self) -> dict[str, Tensor]:
        logits = self.stored()
        order = torch.randperm(len(logits), generator=generator(self.seed, "inception score")).to(
            logits.device
        )
        parts = (logits[rows] for rows in order.tensor_split(min(self.num_splits, len(logits))))
        return {"is": torch.stack([_score(part) for part in parts]).mean()}


def _score(logits: Tensor) -> Tensor:
    """The score of one part's logits [N, K]."""
    log_p = logits.double().log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
