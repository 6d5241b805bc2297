"""Provenance of a result: versions of Python and packages, the git commit, and the hardware."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("dmd2", "torch", "lightning", "hydra-core", "torchmetrics", "numpy")
"""Packages whose version can change a result, or decide whether it can be made again."""


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # e.g. dmd2 itself, run from `src` without being installed
            found[package] = "unknown"
    return found


def commit() -> str:
    """The git commit of this code, with "-dirty" behind it where tracked files were changed.

    "unknown" outside a checkout, or where there is no git.
    """
    # The folder of this file, not the working directory, which may be another repository.
    here = str(Path(__file__).parent)
    # No tags, so that it is always the full hash: --exclude=* matches every tag.
    described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            ["git", "-C", here, *described], capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def hardware() -> str:
    """This machine's GPUs and processor, e.g. "8 NVIDIA H200; 16 cores of AMD EPYC 9334"."""
    parts = []
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} {torch.cuda.get_device_name()}")
    parts.append(f"{os.cpu_count()} cores of {_processor()}")
    return "; ".join(parts)


def _processor() -> str:
    # `platform` knows the architecture alone on Linux.
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
