"""Draw samples from a run's student: numbered PNG files and a sheet of the first (points: picture
and .npy file).

usage: dmd2 sample run=DIR [num_images=100] [out=samples] [KEY=VALUE ...]
       torchrun --no-python --nproc-per-node=8 dmd2 sample run=DIR ...   the same on eight GPUs

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  num_images   How many; the classes come in turn.
  out          Folder for the files.
  weights      Which of the run's averages, or "raw", or a generator's .safetensors, e.g. of `dmd2
               import`.
  seed         Another seed gives other samples; sample i is the same for any num_images and
               batch_size.
  batch_size   Samples at once.
"""

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from dmd2.cli.errors import user_errors
from dmd2.config.check import check_options, config_folder
from dmd2.distributed.process_group import rank, world_size
from dmd2.evaluation.pictures import image, picture
from dmd2.evaluation.samples import SampleSet
from dmd2.evaluation.scoring import device_of
from dmd2.metrics.suite import blocks
from dmd2.runs.load import load_student, on_ranks

NUM_ON_SHEET = 100


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="sample")
@user_errors
def main(options: DictConfig) -> None:
    """Draw, alone or as one of several ranks."""
    check_options(options, "sample")
    if min(options.num_images, options.batch_size) < 1:
        raise ValueError(
            f"num_images and batch_size must be at least 1, got {options.num_images}, "
            f"{options.batch_size}"
        )
    on_ranks(Path(options.run), lambda: draw(options))


def draw(options: DictConfig) -> None:
    """Write this rank's samples as they come, and on rank 0 the sheet of its first ones."""
    student, out = load_student(Path(options.run)), Path(options.out)
    student.read(options.weights)
    data, maker, rows = student.data, student.maker(), range(options.num_images)
    is_image = len(data.shape) > 1
    if not is_image and world_size() > 1:
        raise ValueError("points are drawn by one process; leave torchrun out")
    numbered = SampleSet(
        data.shape, student.conditioner.num_classes, options.seed, device_of(student.generator)
    )
    out.mkdir(parents=True, exist_ok=True)
    shown: list[Tensor] = []
    for block in blocks(rows, options.batch_size):
        x = data.to_pixels(numbered.make(maker, block)[0])
        if is_image:
            for i, pixels in zip(block, x, strict=True):
                image(pixels).save(out / f"{i:06d}.png")
        if (
            not is_image or sum(map(len, shown)) < NUM_ON_SHEET
        ):  # else only files grow with the number of samples
            shown.append(x)
    if rank() == 0:
        x = torch.cat(shown)
        if not is_image:
            np.save(out / "points.npy", x.numpy())
        picture({student.config["name"]: x[:NUM_ON_SHEET] if is_image else x}, out / "sheet.png")
    print(f"{len(rows)} samples are in {out}")
