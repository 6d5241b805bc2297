"""Draw samples from a run's student: numbered PNG files and one sheet.

usage: dmd2 sample run=runs/digits_dmd2/latest [num_images=100] [out=samples] [KEY=VALUE ...]

  run          A run's directory.
  num_images   How many; the classes come in turn.
  out          Folder for the files.
  seed         Another seed gives other samples; sample i is the same for any num_images.
  batch_size   Samples at once.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig
from PIL import Image

from dmd2.config import config_folder
from dmd2.generation import Numbered, StudentMaker
from dmd2.pictures import picture
from dmd2.runtime import load_run


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="sample")
def main(options: DictConfig) -> None:
    """Write the samples."""
    if options.num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {options.num_images}")
    run = load_run(Path(options.run))
    ...
