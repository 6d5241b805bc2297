"""The types of the names that `dmd2` exports lazily; a test compares them with `__init__.py`."""

from dmd2.data import (
    DataModule as DataModule,
)
from dmd2.diffusion import (
    DDIM as DDIM,
    EDM as EDM,
    VP as VP,
    ClassLabels as ClassLabels,
    Denoiser as Denoiser,
    FewStepSampler as FewStepSampler,
    Flow as Flow,
    Heun as Heun,
    Karras as Karras,
    LogitNormal as LogitNormal,
    LogNormalSigma as LogNormalSigma,
    Unconditional as Unconditional,
    UniformRows as UniformRows,
    guided as guided,
)
from dmd2.losses import (
    Denoising as Denoising,
    DistributionMatching as DistributionMatching,
    GANCritic as GANCritic,
    GANGenerator as GANGenerator,
    Models as Models,
    Objective as Objective,
    Regression as Regression,
)
from dmd2.nets import (
    Critic as Critic,
    Discriminator as Discriminator,
    UNet as UNet,
)
from dmd2.runs.load import (
    load as load,
)
from dmd2.training import (
    DMD as DMD,
    Pretrain as Pretrain,
)

__all__ = [
    "DDIM",
    "DMD",
    "EDM",
    "VP",
    "ClassLabels",
    "Critic",
    "DataModule",
    "Denoiser",
    "Denoising",
    "Discriminator",
    "DistributionMatching",
    "FewStepSampler",
    "Flow",
    "GANCritic",
    "GANGenerator",
    "Heun",
    "Karras",
    "LogNormalSigma",
    "LogitNormal",
    "Models",
    "Objective",
    "Pretrain",
    "Regression",
    "UNet",
    "Unconditional",
    "UniformRows",
    "guided",
    "load",
]
