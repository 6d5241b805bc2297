"""The losses of DMD, DMD2 and later methods: equations, loss terms, and turns that evaluate them.

`functional` has the equations, `weighting` the weights of noise levels, `divergences` those of
density ratios. Their functions stay in these modules: `weighting.eps` says what it is, and a bare
`eps` does not.
"""

from dmd2.losses import divergences, functional, weighting
from dmd2.losses.distances import LPIPS, Decoded, LatentDecoder, SquaredError, average_pools
from dmd2.losses.objective import Objective
from dmd2.losses.term import Logs, Term
from dmd2.losses.terms import (
    ApproximateR1,
    Denoising,
    DistributionMatching,
    EmbeddingDistance,
    FDivergence,
    GANCritic,
    GANGenerator,
    GuidanceAugmentation,
    LaterStepsMatching,
    PseudoHuberMatching,
    Regression,
    RelativisticGANCritic,
    RelativisticGANGenerator,
    ScoreIdentity,
)
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Turn
from dmd2.losses.views import Models, View

__all__ = [
    "LPIPS",
    "ApproximateR1",
    "CriticTurn",
    "Decoded",
    "Denoising",
    "DistributionMatching",
    "EmbeddingDistance",
    "FDivergence",
    "GANCritic",
    "GANGenerator",
    "GeneratorTurn",
    "GuidanceAugmentation",
    "LatentDecoder",
    "LaterStepsMatching",
    "Logs",
    "Models",
    "Objective",
    "PseudoHuberMatching",
    "Regression",
    "RelativisticGANCritic",
    "RelativisticGANGenerator",
    "ScoreIdentity",
    "SquaredError",
    "Term",
    "Turn",
    "View",
    "average_pools",
    "divergences",
    "functional",
    "weighting",
]
