"""Draw samples from a run's student: numbered PNG files and a sheet of the first ones.

usage: dmd2 sample run=DIR [num_images=100] [out=samples] [KEY=VALUE ...]
       dmd2 sample run=DIR prompt="a red dot"        what you ask for, of a student that reads text
       dmd2 sample run=DIR 'prompt=["a red dot","two dots"]'     or prompt=FILE.txt, one a line
       torchrun --no-python --nproc-per-node=8 dmd2 sample run=DIR ...   the same on eight GPUs

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  prompt       What to draw: a text, a list of texts, or a file of captions. There are four images
               of each, or as many as num_images has, and of at most 100 prompts, drawn by one
               process, grid.png with a prompt a row.
  layout       files; or geneval or dpg_bench, which read that benchmark's prompts and lay out four
               images of each as its own script reads them, too, in the folder OUT/LAYOUT
               (docs/metrics.md).
  num_images   How many; the classes, captions or prompts come in turn.
  out          Folder for the files. Points get points.npy and one picture. One that holds other
               samples is refused.
  weights      One of the run's averages, or "raw", or a generator's .safetensors, e.g. of
               `dmd2 import`; by default the first average.
  label        One class, or caption, by its number; null draws all of them in turn.
  size         Height and width in pixels, of a text-to-image student, e.g. [768,1344]; by default
               those of the run. Steps and noise levels stay those that it was trained at.
  seed         Another seed gives other samples; sample i is the same for any num_images and
               batch_size.
  batch_size   Samples at once; by default as many as where the run is scored.
  trust        true: also where the run's config is another user's, or calls what is no part of
               this program (SECURITY.md).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dmd2.cli.sample_folder import check_room, take_folder
from dmd2.cli.sample_layouts import LAYOUTS, NUM_OF_PROMPT, Files, image_of
from dmd2.distributed.process_group import (
    barrier,
    rank_blocks,
    rank_zero_first,
    world_size,
)
from dmd2.distributed.rank_zero import claimed, on_rank_zero
from dmd2.evaluation.pictures import image, picture
from dmd2.evaluation.prompt_grid import prompt_grid
from dmd2.evaluation.samples import SampleSet
from dmd2.io.files import key_of
from dmd2.io.hashed_tensors import digest
from dmd2.io.progress import progress_bar
from dmd2.io.replace import replacing, sweep
from dmd2.runs.load import Student, load_student
from dmd2.runs.run_config import as_one_of_torchrun

NUM_ON_SHEET = 100  # ten rows of ten


def main(options: DictConfig) -> None:
    """Draw in this process, which may be one of several that torchrun started."""
    out = Path(options.out)
    refusal = f"dmd2 sample is at work in {out} already; wait for it, or name another: out=DIR"
    with as_one_of_torchrun(Path(options.run), options.trust):
        layout = layout_for(options)
        student, prompts = student_for(options, layout.texts), layout.texts
        samples = student.sample_set(options.seed, options.label)
        num = options.num_images or len(prompts) * NUM_OF_PROMPT or NUM_ON_SHEET
        batch_size = options.batch_size or student.config["metric"]["batch_size"]
        layout.check(num, student.shape)
        check_room(out, student.shape, num, batch_size)
        weights = digest(student.generator.state_dict())
        parts = [student.config[name] for name in ("sampler", "teacher", "data")]
        asked = [options.seed, options.label, list(prompts), student.size, student.shape]
        key = key_of(weights, *asked, *parts)
        # After all that may be refused: a mistake leaves no folder.
        out.mkdir(parents=True, exist_ok=True)
        with claimed(out / "sample", refusal):
            with rank_zero_first():  # before the others write: theirs would be swept as well
                on_rank_zero(lambda: sweep(out, 0))
                on_rank_zero(lambda: take_folder(out, key, num))
            draw(out, student, samples, prompts, num, batch_size)
            barrier()  # all ranks' files are there
            on_rank_zero(lambda: layout.arrange(out))
        print(f"{num} samples are in {out}")


def layout_for(options: DictConfig) -> Files:
    """The layout with its prompts, if any; raises ValueError for one of them alone in a layout that
    has them all, and as the layouts do.
    """
    given: Any = OmegaConf.to_container(options)
    if given["layout"] != "files" and given["label"] is not None:
        raise ValueError(f"layout={given['layout']} has all of its prompts; leave label out")
    return LAYOUTS[given["layout"]](given["prompt"])


def student_for(options: DictConfig, prompts: Sequence[str]) -> Student:
    """The student with its weights, told the prompts that it is to draw, if any.

    Raises ValueError for prompts of a student without text, for a size that it cannot make, and
    for points on several ranks.
    """
    student = load_student(Path(options.run), trust=options.trust)
    # All points go into one file, and no rank has them all.
    if len(student.data.shape) == 1 and world_size() > 1:
        raise ValueError("points are drawn by one process; leave torchrun out")
    given: Any = OmegaConf.to_container(options)
    if given["size"] is not None:
        student = student.at_size(given["size"])
    student.read(options.weights)
    return student.asked_for(prompts) if prompts else student


def draw(
    out: Path,
    student: Student,
    samples: SampleSet,
    prompts: Sequence[str],
    num: int,
    batch_size: int,
) -> None:
    """Write this rank's samples as they come, and on rank 0 the sheet of its first ones."""
    data, sampling, rows = student.data, student.sampling(), range(num)
    is_image = len(data.shape) > 1
    shown: list[Tensor] = []
    # This rank's blocks alone; names of files are numbers of samples, so ranks share the folder.
    with progress_bar("sampling", num, unit=" samples") as bar:
        for block in rank_blocks(rows, batch_size):
            x = data.to_pixels(samples.make(sampling, block)[0])
            if is_image:
                for i, pixels in zip(block, x, strict=True):
                    with replacing(image_of(out, i)) as partial:
                        image(pixels).save(partial, "png")
            # Of many images only those on the sheet stay in memory; of points all, for points.npy.
            if not is_image or sum(map(len, shown)) < NUM_ON_SHEET:
                shown.append(x)
            bar.update(block.stop - bar.n)
    on_rank_zero(lambda: write_sheet(torch.cat(shown), student.config["name"], prompts, out))


def write_sheet(x: Tensor, title: str, prompts: Sequence[str], out: Path) -> None:
    """One picture of images uint8 [N, C, H, W], by prompts where there are some, or of points
    [N, 2], which get a file as well.
    """
    is_image = x.ndim > 2
    if not is_image:
        with replacing(out / "points.npy") as partial, partial.open("wb") as file:
            np.save(file, x.numpy())
    # A rank's share of several has other prompts in turn; fewer images than prompts leave a row
    # without, and rows of very many are no picture to look at.
    if prompts and world_size() == 1 and len(prompts) <= min(len(x), NUM_ON_SHEET):
        whole = min(len(x), NUM_ON_SHEET) // len(prompts)
        with replacing(out / "grid.png") as partial:
            prompt_grid(x[: whole * len(prompts)], prompts).save(partial, "png")
    else:
        picture({title: x[:NUM_ON_SHEET] if is_image else x}, out / "sheet.png")
