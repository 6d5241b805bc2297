"""Prints the slant of what a run's student draws: pixels to the right for each row upwards.

usage: python experiments/style_lora/slant.py RUN [WEIGHTS.safetensors]
"""

import sys

import torch
from torch import Tensor

import dmd2


def slant(images: Tensor) -> Tensor:
    """The slant [B] of the ink in images [B, 1, H, W], black 0: columns regressed on rows upwards.

    To shear an image by s adds s to it.
    """
    ink = images[:, 0].double()
    ink = ink / ink.sum((1, 2), keepdim=True)
    row, column = (torch.arange(n, dtype=ink.dtype) for n in ink.shape[1:])
    row = row - (ink.sum(2) @ row)[:, None]  # [B, H], from the ink's middle
    column = column - (ink.sum(1) @ column)[:, None]
    covariance = torch.einsum("bhw,bh,bw->b", ink, row, column)
    return -covariance / (ink.sum(2) * row**2).sum(1)


if __name__ == "__main__":
    student = dmd2.load(sys.argv[1], sys.argv[2] if sys.argv[2:] else None)
    real = torch.from_numpy(student.data.train.x)
    for name, x in (("student", student.sample(2000).cpu()), ("its data", real)):
        found = slant(x)
        print(f"{name}: slant {found.mean():.2f} ± {found.std():.2f}")
