"""Prepare data for training, by a recipe; begun again after a kill, it goes on where it was.

usage: dmd2 prepare recipe=NAME source=PATH out=DIR [recipe.KEY=VALUE ...]
       torchrun --no-python --nproc-per-node=8 dmd2 prepare recipe=NAME ...   the same on eight GPUs

  recipe   What to make: imagenet64, latents (of Stable Diffusion 1.5) or latents_sdxl;
           conf/recipe/NAME.yaml has its
           options. Noise-image pairs are a teacher's: dmd2 pairs experiment=NAME.
  source   What to make it of, e.g. the folder of ILSVRC's train images.
  out      Folder for what is made; a finished one is checked, byte for byte.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dmd2.cli.verbs import verb_of_options
from dmd2.distributed.process_group import process_group
from dmd2.runs.build import build


@verb_of_options("prepare")
def main(options: DictConfig) -> None:
    """Follow the recipe, and print its report."""
    recipe: Any = OmegaConf.to_container(options, resolve=True)
    with process_group(on_gpu=False):  # ranks share files, and no tensors
        print("\n".join(build(recipe["recipe"])(Path(options.source), Path(options.out))))
