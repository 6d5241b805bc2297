"""Figures: sample grids, scatter plots, the comparison sheet, scores of runs, as PNG files."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dmd2.data.base import DataModule
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.guidance import Guidance
from dmd2.distributed.device import device_of
from dmd2.evaluation.references import teacher_samplings
from dmd2.evaluation.samples import Sampling
from dmd2.evaluation.scoring import Evaluator
from dmd2.io.replace import replacing
from dmd2.io.shown import in_one_line, printable

# No display on a server; and before pyplot is imported, which chooses its backend.
matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

MAX_NAME = 120
"""Characters of a row's name that a plot shows."""
MAX_ROWS = 200
"""Rows that a plot shows: matplotlib's pictures have a largest size."""
REAL, STUDENT, TEACHER = "#888888", "#c8102e", "#1f5fa8"


def image(pixels: Tensor) -> Image.Image:
    """An image of PIL's from uint8 [C, H, W], grey or colour."""
    # PIL wants channels last, and of grey images no axis for them.
    array = pixels.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def grid(images: Tensor, num_columns: int, least_pixels: int = 320) -> Image.Image:
    """One sheet of images uint8 [N, C, H, W], row by row, with a white line between them.

    A small sheet is enlarged to at least `least_pixels` along its shorter side, without smoothing.
    """
    num, channels, height, width = images.shape
    num_rows = -(-num // num_columns)  # rounded up; what is missing in the last row stays white
    padded = torch.full(
        (num_rows * num_columns, channels, height + 1, width + 1), 255, dtype=torch.uint8
    )
    padded[:num, :, :height, :width] = images.cpu()
    # [rows, columns, C, H + 1, W + 1] to [C, rows, H + 1, columns, W + 1].
    table = padded.view(num_rows, num_columns, channels, height + 1, width + 1).permute(
        2, 0, 3, 1, 4
    )
    sheet = image(table.reshape(channels, num_rows * (height + 1), num_columns * (width + 1)))
    scale = max(1, -(-least_pixels // min(sheet.size)))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def picture(samples: Mapping[str, Tensor], path: Path) -> None:
    """Write one figure of several sets of samples, side by side under their names.

    Images uint8 [N, C, H, W] are shown as grids, points [N, 2] as scatter plots. The samples of a
    `SampleSet` have the classes in turn; a grid shows a class a row, ten classes at most.
    """
    figure, axes = plt.subplots(1, len(samples), figsize=(2.8 * len(samples), 3.2), squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.07)
    # One scale for all point sets, set by the first (the real data), so that they compare.
    reach = 1.25 * float(next(iter(samples.values())).abs().max())
    for axis, (title, x) in zip(axes[0], samples.items(), strict=True):
        axis.set_title(title, fontsize=9)
        if x.ndim == 2:
            axis.scatter(*x.cpu().T.numpy(), s=3, alpha=0.4, linewidths=0, color=TEACHER)
            axis.set(
                xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[]
            )
        else:
            sheet = grid(class_rows(x), -(-len(x) // 10)).convert("RGB")
            axis.imshow(np.asarray(sheet), interpolation="nearest")
            axis.axis("off")
    _save(figure, path)


def class_rows(images: Tensor, num_rows: int = 10) -> Tensor:
    """Images [N, ...] with the classes in turn, rearranged so that a row of a grid is a class.

    What does not fill the last column is left out; fewer than `num_rows` images stay as they are.
    """
    if len(images) < num_rows:
        return images
    # With ten classes image i is of class i % 10, which is its column in this view.
    num_shown = len(images) // num_rows * num_rows
    return images[:num_shown].view(-1, num_rows, *images.shape[1:]).transpose(0, 1).flatten(0, 1)


def comparison(
    evaluator: Evaluator,
    teacher: Denoiser,
    guidance: float | Guidance,
    student: Denoiser,
    path: Path,
) -> None:
    """Write one sheet: real samples, the teacher at each of its step counts, the student.

    Teacher and student start from the same noise and labels, so that pictures compare.
    """
    data = evaluator.data
    is_grid = len(data.shape) == 3  # else points
    # A score's batch fits into memory, so these do; a scatter plot needs more samples than a grid.
    num = min(100, evaluator.batch_size) if is_grid else 2000
    device = device_of(student)
    samples = evaluator.sample_set(device)
    shown: dict[str, Tensor] = {}
    # Where the real images are a folder's (COCO) there are statistics of them only.
    if evaluator.real.data is not None:
        labels = samples.labels(range(num)).cpu()
        shown["real"] = _real(evaluator.real.data, labels, evaluator.conditioner.num_classes)
    samplings: dict[str, Sampling] = {
        f"teacher, {s.solver.num_steps} step{'s' * (s.solver.num_steps > 1)}": s
        for s in teacher_samplings(evaluator, teacher, guidance)
    }
    samplings["student"] = evaluator.sampling(student)
    for title, sampling in samplings.items():
        encoded = evaluator.encoded(sampling, samples, [range(num)])
        x0, _ = evaluator.made(encoded, samples, range(num))
        shown[f"{title} ({sampling.num_evaluations} NFE)"] = data.to_pixels(x0)
    picture(shown, path)


def _real(data: DataModule, labels: Tensor, num_classes: int) -> Tensor:
    """Real training samples [N, ...] for labels [N]: those of a class in order, then over again.

    A class without samples gets the first sample of the split.
    """
    train, taken = data.train, dict.fromkeys(labels.tolist(), 0)
    rows = []
    for label in labels.tolist():
        mine = (train.labels == label).nonzero()[0] if num_classes else range(len(train))
        rows.append(mine[taken[label] % len(mine)] if len(mine) else 0)
        taken[label] += 1
    return torch.as_tensor(data.shown(train.x[rows]))


def dots(scores: Mapping[str, Sequence[float]], metric: str, path: Path) -> None:
    """Plot a row for each name, the first at the top: a line at the mean, each value as a dot.

    Of more than `MAX_ROWS` names the first are shown, and the axis says of how many.
    """
    all_rows, scores = len(scores), dict(itertools.islice(scores.items(), MAX_ROWS))
    shown = "" if all_rows == len(scores) else f"; the first {len(scores)} of {all_rows:,} rows"
    figure, axis = plt.subplots(figsize=(6.4, 0.35 * len(scores) + 1.2))
    for row, values in enumerate(scores.values()):
        axis.plot(values, [row] * len(values), "o", ms=5, color=STUDENT, alpha=0.7)
        axis.plot(float(np.mean(values)), row, "|", ms=14, mew=2, color=TEACHER)
    # Configurations are of others: their dollar signs are no mathematics.
    names = [printable(in_one_line(name))[:MAX_NAME] for name in scores]
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set_xlabel(printable(f"{metric} (lower is better{shown})"), parse_math=False)
    axis.set_ylim(len(scores) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    everything = [value for values in scores.values() for value in values]
    if 0 < 4 * min(everything) < max(everything):
        # Ticks at 1, 2 and 5 in plain numbers: an axis of one decade has several.
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as partial, warnings.catch_warnings():
        # Where the font lacks a character of a name it draws a box.
        warnings.filterwarnings("ignore", "Glyph")
        # As large as names and titles want it: a layout of a fixed size may have no room for them.
        figure.savefig(partial, dpi=130, format="png", bbox_inches="tight")
    # Closed, since pyplot keeps every open figure, and a run writes hundreds.
    plt.close(figure)
