"""Draw samples from a run's student: numbered PNG files and one sheet (points: one picture and an .npy file).

usage: dmd2 sample run=DIR [num_images=100] [out=samples] [KEY=VALUE ...]

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  num_images   How many; the classes come in turn.
  out          Folder for the files.
  weights      Which of the run's averages, or "raw", or a generator's .safetensors, e.g. of `dmd2 import`.
  seed         Another seed gives other samples; sample i is the same for any num_images and batch_size.
  batch_size   Samples at once.
"""

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from dmd2.config import check_options, config_folder
from dmd2.errors import answered
from dmd2.generation import Numbered
from dmd2.pictures import image, picture
from dmd2.scoring import device_of
from dmd2.students import load_student


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="sample")
@answered
def main(options: DictConfig) -> None:
    """Write the samples."""
    check_options(options, "sample")
    if min(options.num_images, options.batch_size) < 1:
        raise ValueError(
            f"num_images and batch_size must be at least 1, got {options.num_images}, {options.batch_size}"
        )
    student, out = load_student(Path(options.run)), Path(options.out)
    student.read(options.weights)
    data, num_classes = student.data, student.conditioner.num_classes
    numbered = Numbered(data.shape, num_classes, options.seed, device_of(student.generator))
    batches = numbered.batches(student.maker(), range(options.num_images), options.batch_size)
    x = torch.cat([data.to_pixels(x0) for x0, _ in batches])
    out.mkdir(parents=True, exist_ok=True)
    picture({student.config["name"]: x}, out / "sheet.png")
    if x.ndim == 2:
        np.save(out / "points.npy", x.numpy())
    else:
        for i, pixels in enumerate(x):
            image(pixels).save(out / f"{i:06d}.png")
    print(f"{len(x)} samples are in {out}")
