"""The mathematics: noise schedules, conditions, denoisers, samplers and solvers."""

from dmd2.diffusion.conditioning import (
    ClassLabels,
    Cond,
    Conditioner,
    Unconditional,
    drop,
    join,
    together,
)
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction, guided, last, to_x0
from dmd2.diffusion.first_jump import FirstJump
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.preconditioning import EDM, UnscaledDenoiser
from dmd2.diffusion.sampling import FewStepSampler, NoisedReal, ODEWalk
from dmd2.diffusion.schedules import (
    VP,
    Flow,
    Karras,
    NoiseSchedule,
    expand,
)
from dmd2.diffusion.solvers import DDIM, Denoise, Heun, Solver, coefficients, estimate
from dmd2.diffusion.steps import DrawnStep, EveryStep, StepChoice, Steps
from dmd2.diffusion.training_times import (
    BelowStep,
    LogitNormal,
    LogNormalSigma,
    TimeSampler,
    UniformRows,
    WithinSegment,
)

__all__ = [
    "DDIM",
    "EDM",
    "VP",
    "BelowStep",
    "ClassLabels",
    "Cond",
    "Conditioner",
    "Denoise",
    "Denoiser",
    "DrawnStep",
    "Encoding",
    "EveryStep",
    "FewStepSampler",
    "FirstJump",
    "Flow",
    "Guidance",
    "Heun",
    "Karras",
    "LogNormalSigma",
    "LogitNormal",
    "NoiseSchedule",
    "NoisedReal",
    "ODEWalk",
    "Prediction",
    "Solver",
    "StepChoice",
    "Steps",
    "TimeSampler",
    "Unconditional",
    "UniformRows",
    "UnscaledDenoiser",
    "WithinSegment",
    "coefficients",
    "drop",
    "estimate",
    "expand",
    "guided",
    "join",
    "last",
    "to_x0",
    "together",
]
