"""Inception score (Salimans et al. 2016, arXiv:1606.03498, section 4).

High where a classifier is sure of each image and the images spread over many classes.
"""

import math

import torch
from torch import Tensor

from dmd2.metrics.base import StoredFeatures
from dmd2.randomness import generator


class InceptionScore(StoredFeatures):
    """exp of the mean KL(p(y | x) || p(y)), reported as "is"; higher is better.

    detector    One whose features are logits, or log probabilities (a softmax leaves them as they
                are).
    num_splits  The score is the mean over so many random parts of the samples.
    seed        The parts depend on it alone.

    Real data is not read.
    """

    reports = ("is",)
    reads_real = False

    def __init__(
        self, detector: str, num_splits: int = 10, seed: int = 0, prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        self.num_splits, self.seed = num_splits, seed

    def compute(self) -> dict[str, Tensor]:
        """{"is": the mean score of the parts}."""
        logits = self.stored()
        # Random parts: samples may come sorted by class.
        order = torch.randperm(len(logits), generator=generator(self.seed, "inception score")).to(
            logits.device
        )
        # No part may be empty: with fewer samples than parts there are fewer parts.
        parts = (logits[rows] for rows in order.tensor_split(min(self.num_splits, len(logits))))
        return {"is": torch.stack([_score(part) for part in parts]).mean()}


def _score(logits: Tensor) -> Tensor:
    """The score of one part's logits [N, K]."""
    # Salimans et al. 2016, section 4: exp(E_x KL(p(y | x) || p(y))), p(y) the mean of p(y | x).
    log_p = logits.double().log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
