"""The types of the names that `dmd2` exports lazily; a test compares them with `__init__.py`."""

from dmd2.data import (
    DataModule as DataModule,
)
from dmd2.diffusion import (
    DDIM as DDIM,
)
from dmd2.diffusion import (
    EDM as EDM,
)
from dmd2.diffusion import (
    VP as VP,
)
from dmd2.diffusion import (
    ClassLabels as ClassLabels,
)
from dmd2.diffusion import (
    Denoiser as Denoiser,
)
from dmd2.diffusion import (
    FewStepSampler as FewStepSampler,
)
from dmd2.diffusion import (
    Flow as Flow,
)
from dmd2.diffusion import (
    Heun as Heun,
)
from dmd2.diffusion import (
    Karras as Karras,
)
from dmd2.diffusion import (
    LogitNormal as LogitNormal,
)
from dmd2.diffusion import (
    LogNormalSigma as LogNormalSigma,
)
from dmd2.diffusion import (
    Unconditional as Unconditional,
)
from dmd2.diffusion import (
    UniformRows as UniformRows,
)
from dmd2.diffusion import (
    guided as guided,
)
from dmd2.losses import (
    Denoising as Denoising,
)
from dmd2.losses import (
    DistributionMatching as DistributionMatching,
)
from dmd2.losses import (
    GANCritic as GANCritic,
)
from dmd2.losses import (
    GANGenerator as GANGenerator,
)
from dmd2.losses import (
    Models as Models,
)
from dmd2.losses import (
    Objective as Objective,
)
from dmd2.losses import (
    Regression as Regression,
)
from dmd2.nets import (
    Critic as Critic,
)
from dmd2.nets import (
    Discriminator as Discriminator,
)
from dmd2.nets import (
    UNet as UNet,
)
from dmd2.runs.load import (
    load as load,
)
from dmd2.training import (
    DMD as DMD,
)
from dmd2.training import (
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
