"""Samples of a benchmark's prompts, laid out as the authors' own scripts read them.

GenEval (Ghosh et al. 2023, arXiv:2310.11513) and DPG-Bench (Hu et al. 2024, arXiv:2403.05135),
four images of each prompt. Nothing of either is needed but its file or folder of prompts.
"""

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
    """Numbered files and no more.

    asked  What `prompt` says; None where nothing was asked for. Raises ValueError, or OSError,
           where it names no prompts.
    """

    texts: Sequence[str]
    """The prompts in their order; image i is of prompt i modulo their number."""

    def __init__(self, asked: Any) -> None:
        self.texts = [] if asked is None else texts_of(asked)

    def check(self, num: int, shape: Sequence[int]) -> None:
        """Raise ValueError where so many samples of this shape do not suit; here all do."""

    def arrange(self, out: Path) -> None:
        """Lay the files of `out` out once more; here nothing is done."""


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

    def check(self, num: int, shape: Sequence[int]) -> None:
        """Raise ValueError unless there are four images of each prompt."""
        if num != NUM_OF_PROMPT * len(self.texts):
            raise ValueError(
                f"layout={self.name} has {NUM_OF_PROMPT} images of each of {len(self.texts)} "
                f"prompts, got num_images={num}; leave num_images out"
            )

    def images(self, out: Path, i: int) -> list[Image.Image]:
        """The four of prompt i."""
        return [Image.open(image_of(out, i + k * len(self.texts))) for k in range(NUM_OF_PROMPT)]


class GenEval(Benchmark):
    """`geneval/00000/samples/0000.png` to `0003.png`, and in `metadata.jsonl` the prompt's line.

    `geneval` is the first argument of the authors' evaluation/evaluate_images.py.
    """

    name = "geneval"
    source = "prompts/evaluation_metadata.jsonl of github.com/djghosh13/geneval"

    def __init__(self, asked: Any) -> None:
        path, texts = self.path(asked), []
        self.lines = list(lines_of(path))
        for i, line in self.lines:
            row = parse_json(line.encode(), where := f"line {i} of {path}")
            if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
                raise ValueError(f'{where} has no "prompt"; layout=geneval reads {self.source}')
            texts.append(row["prompt"])
        if not texts:
            raise ValueError(f"{path} has no prompts; layout=geneval reads {self.source}")
        self.texts = texts

    def arrange(self, out: Path) -> None:
        """Copy each image to its prompt, and write its line."""
        for i, (_, line) in enumerate(self.lines):
            folder = out / self.name / f"{i:05d}"
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            with replacing(folder / "metadata.jsonl") as partial:
                partial.write_text(line + "\n", encoding="utf-8")
            for k, image in enumerate(self.images(out, i)):
                with replacing(folder / "samples" / f"{k:04d}.png") as partial:
                    image.save(partial, "png")


class DPGBench(Benchmark):
    """`dpg_bench/NAME.png`, the four images of the prompt in NAME.txt as a square.

    `dpg_bench` is the first argument of the authors' dist_eval.sh; an image's size the second.
    """

    name = "dpg_bench"
    source = "the folder dpg_bench/prompts of github.com/TencentQQGYLab/ELLA, a .txt a prompt"

    def __init__(self, asked: Any) -> None:
        if not (files := sorted(self.path(asked).glob("*.txt"))):
            raise ValueError(f"{asked} has no .txt; layout=dpg_bench reads {self.source}")
        self.names = [path.stem for path in files]
        self.texts = [text_of(path.read_bytes(), str(path)) for path in files]

    def check(self, num: int, shape: Sequence[int]) -> None:
        """Raise ValueError for too many, too few, and for images that are not square."""
        super().check(num, shape)
        if shape[-2] != shape[-1]:  # the script cuts squares out
            raise ValueError("layout=dpg_bench wants square images, e.g. 'size=[1024,1024]'")

    def arrange(self, out: Path) -> None:
        """Join the four images of each prompt, two a row."""
        (out / self.name).mkdir(exist_ok=True)
        for i, name in enumerate(self.names):
            images = self.images(out, i)
            size = images[0].width
            square = Image.new(images[0].mode, (2 * size, 2 * size))
            for k, image in enumerate(images):
                square.paste(image, (k % 2 * size, k // 2 * size))
            with replacing(out / self.name / f"{name}.png") as partial:
                square.save(partial, "png")


LAYOUTS: dict[str, type[Files]] = {"files": Files, "geneval": GenEval, "dpg_bench": DPGBench}
