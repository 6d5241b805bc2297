"""`dmd2`: distribution matching distillation of diffusion models into one to four steps.

    import dmd2

    student = dmd2.load("runs/digits_dmd2/latest")
    images = student.sample(16, seed=0)  # uint8 [16, C, H, W]

The names below are imported when they are first used: `import dmd2` itself loads nothing, so that
the command line answers at once. Their types are in `__init__.pyi`.
"""

import importlib
from typing import Any

_PACKAGES = {
    "dmd2.data": ("DataModule",),
    "dmd2.diffusion": (
        "DDIM",
        "EDM",
        "VP",
        "ClassLabels",
        "Denoiser",
        "FewStepSampler",
        "Flow",
        "Heun",
        "Karras",
        "LogNormalSigma",
        "LogitNormal",
        "Unconditional",
        "UniformRows",
        "guided",
    ),
    "dmd2.losses": (
        "Denoising",
        "DistributionMatching",
        "GANCritic",
        "GANGenerator",
        "Models",
        "Objective",
        "Regression",
    ),
    "dmd2.nets": ("Critic", "Discriminator", "UNet"),
    "dmd2.runs.load": ("load",),
    "dmd2.training": ("DMD", "Pretrain"),
}
_HOMES = {name: package for package, names in _PACKAGES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dmd2' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
