"""Prepare data for training, by a recipe; after an interruption the same command resumes.

usage: dmd2 prepare recipe=NAME source=PATH out=DIR [recipe.KEY=VALUE ...]
       torchrun --no-python --nproc-per-node=8 dmd2 prepare recipe=NAME ...   the same on eight GPUs

  recipe   What to make: imagenet64, latents (of Stable Diffusion 1.5) or latents_sdxl;
           conf/recipe/NAME.yaml has its options. Noise-image pairs are made from a teacher, by
           `dmd2 pairs experiment=NAME`.
  source   What to make it from, e.g. the folder of ILSVRC's train images.
  out      The folder to write; one that is finished is checked, byte for byte, and must be
           of this source and these options.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dmd2.distributed.process_group import process_group
from dmd2.io.shown import printable_line
from dmd2.runs.build import build


def main(options: DictConfig) -> None:
    """Follow the recipe, and print its report."""
    # Interpolations are of the form ${recipe.KEY}: resolved in the whole config, not in the node.
    recipe: Any = OmegaConf.to_container(options, resolve=True)
    # Ranks share the work through files and exchange no tensors: gloo will do.
    with process_group(on_gpu=False):
        lines = build(recipe["recipe"])(Path(options.source), Path(options.out))
        print(*map(printable_line, lines), sep="\n")
