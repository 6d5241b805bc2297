"""Loss terms, the rows of a loss file: each is thin over an equation in `functional`.

A term has a weight, the name of the noised view that it reads, and `(turn) -> (loss, logs)`. There
are no flags: a term is on where the loss file lists it.
"""

from dmd2.losses.terms.embedding import EmbeddingDistance
from dmd2.losses.terms.gan import (
    ApproximateR1,
    GANCritic,
    GANGenerator,
    RelativisticGANCritic,
    RelativisticGANGenerator,
)
from dmd2.losses.terms.matching import (
    DistributionMatching,
    FDivergence,
    GuidanceAugmentation,
    LaterStepsMatching,
    PseudoHuberMatching,
)
from dmd2.losses.terms.regression import Denoising, Regression
from dmd2.losses.terms.score_identity import ScoreIdentity

__all__ = [
    "ApproximateR1",
    "Denoising",
    "DistributionMatching",
    "EmbeddingDistance",
    "FDivergence",
    "GANCritic",
    "GANGenerator",
    "GuidanceAugmentation",
    "LaterStepsMatching",
    "PseudoHuberMatching",
    "Regression",
    "RelativisticGANCritic",
    "RelativisticGANGenerator",
    "ScoreIdentity",
]
