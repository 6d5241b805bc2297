"""Samples of a benchmark's prompts, laid out as the authors' own scripts read them.

GenEval (Ghosh et al. 2023, arXiv:2310.11513) and DPG-Bench (Hu et al. 2024, arXiv:2403.05135),
four images of each prompt. Nothing of either is needed but its file or folder of prompts.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dmd2.data.captions import texts_of
from dmd2.data.tables import lines_of, text_of
from dmd2.io.files import parse_json
from dmd2.io.replace import replacing

NUM_OF_PROMPT = 4  # a row of grid.png, and what both benchmarks ask for


def image_of(out: Path, i: int) -> Path:
    """The file of sample i."""
    return out / f"{i:06d}.png"


class Files:
    """Numbered files and no more."""

    def texts(self, asked: str | Sequence[str]) -> list[str]:
        """The prompts that `prompt` names; raises as `texts_of`."""
        return texts_of(asked)

    def check(self, num: int, prompts: Sequence[str], shape: Sequence[int]) -> None:
        """Raise ValueError where so many samples of this shape do not suit; here all do."""

    def arrange(self, out: Path, asked: str | Sequence[str]) -> None:
        """Lay the files of `out`, image i of prompt i modulo their number, out once more."""


class Benchmark(Files):
    """Base of benchmarks: `source` says what `prompt` must name, and where that is found."""

    name: str
    source: str

    def path(self, asked: Any) -> Path:
        """The path that `prompt` names; raises ValueError where it is none."""
        if not isinstance(asked, str) or not Path(asked).exists():
            raise ValueError(
                f"layout={self.name} wants its prompts, got prompt={asked!r:.60}; type "
                f"prompt=PATH of {self.source}"
            )
        return Path(asked)

    def check(self, num: int, prompts: Sequence[str], shape: Sequence[int]) -> None:
        """Raise ValueError unless there are prompts, and four images of each."""
        if not prompts:
            self.path(None)
        if num != NUM_OF_PROMPT * len(prompts):
            raise ValueError(
                f"layout={self.name} has {NUM_OF_PROMPT} images of each of {len(prompts)} prompts, "
                f"got num_images={num}; leave num_images out"
            )


class GenEval(Benchmark):
    """`geneval/00000/samples/0000.png` to `0003.png`, and in `metadata.jsonl` the prompt's line.

    `geneval` is the first argument of the authors' evaluation/evaluate_images.py.
    """

    name = "geneval"
    source = "evaluation_metadata.jsonl of github.com/djghosh13/geneval, prompts"

    def texts(self, asked: str | Sequence[str]) -> list[str]:
        """The "prompt" of each line; raises ValueError that names a line without."""
        found = []
        for i, line in lines_of(self.path(asked)):
            where = f"line {i} of {asked}"
            row = parse_json(line.encode(), where)
            if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
                raise ValueError(f'{where} has no "prompt"; layout=geneval reads {self.source}')
            found.append(row["prompt"])
        return found

    def arrange(self, out: Path, asked: str | Sequence[str]) -> None:
        """Copy each image to its prompt, and write its line."""
        lines = [line for _, line in lines_of(self.path(asked))]
        for i, line in enumerate(lines):
            folder = out / self.name / f"{i:05d}"
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            (folder / "metadata.jsonl").write_text(line + "\n", encoding="utf-8")
            for k in range(NUM_OF_PROMPT):
                image = image_of(out, i + k * len(lines))
                shutil.copyfile(image, folder / "samples" / f"{k:04d}.png")


class DPGBench(Benchmark):
    """`dpg_bench/NAME.png`, the four images of the prompt in NAME.txt as a square.

    `dpg_bench` is the first argument of the authors' dist_eval.sh; an image's size the second.
    """

    name = "dpg_bench"
    source = "the folder dpg_bench/prompts of github.com/TencentQQGYLab/ELLA, a .txt a prompt"

    def files(self, asked: Any) -> list[Path]:
        """The prompts' files by name; raises ValueError where there are none."""
        if not (found := sorted(self.path(asked).glob("*.txt"))):
            raise ValueError(f"{asked} has no .txt; layout=dpg_bench reads {self.source}")
        return found

    def texts(self, asked: str | Sequence[str]) -> list[str]:
        """The text of each file."""
        return [text_of(path.read_bytes(), str(path)) for path in self.files(asked)]

    def check(self, num: int, prompts: Sequence[str], shape: Sequence[int]) -> None:
        """Raise ValueError for too many, too few, and for images that are not square."""
        super().check(num, prompts, shape)
        if shape[-2] != shape[-1]:  # the script cuts squares out
            raise ValueError("layout=dpg_bench wants square images, e.g. 'size=[1024,1024]'")

    def arrange(self, out: Path, asked: str | Sequence[str]) -> None:
        """Join the four images of each prompt, two a row."""
        (out / self.name).mkdir(exist_ok=True)
        files = self.files(asked)
        for i, path in enumerate(files):
            images = [Image.open(image_of(out, i + k * len(files))) for k in range(NUM_OF_PROMPT)]
            size = images[0].width
            square = Image.new(images[0].mode, (2 * size, 2 * size))
            for k, image in enumerate(images):
                square.paste(image, (k % 2 * size, k // 2 * size))
            with replacing(out / self.name / f"{path.stem}.png") as partial:
                square.save(partial, "png")


LAYOUTS = {"files": Files(), "geneval": GenEval(), "dpg_bench": DPGBench()}
