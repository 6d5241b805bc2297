"""The losses of DMD and DMD2: equations, loss terms, and the turns that evaluate them.

`functional` has the equations, `weighting` the weights of noise levels. Their functions stay in
these modules: `weighting.eps` says what it is, and a bare `eps` does not.
"""

from dmd2.losses import functional, weighting
from dmd2.losses.distances import LPIPS, Decoded, LatentDecoder, SquaredError, average_pools
from dmd2.losses.objective import Objective
from dmd2.losses.terms import (
    Denoising,
    DistributionMatching,
    GANCritic,
    GANGenerator,
    Regression,
    by_level,
)
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Logs, Term, Turn
from dmd2.losses.views import Models, View

__all__ = [
    "LPIPS",
    "CriticTurn",
    "Decoded",
    "Denoising",
    "DistributionMatching",
    "GANCritic",
    "GANGenerator",
    "GeneratorTurn",
    "LatentDecoder",
    "Logs",
    "Models",
    "Objective",
    "Regression",
    "SquaredError",
    "Term",
    "Turn",
    "View",
    "average_pools",
    "by_level",
    "functional",
    "weighting",
]
