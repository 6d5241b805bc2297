"""A sheet of samples with the text that each row was asked for."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from dmd2.evaluation.pictures import class_rows, grid

TEXT_WIDTH = 240
"""Of the column of texts, in pixels."""
LETTERS = 34
"""In a line of it."""


def prompt_grid(images: Tensor, prompts: Sequence[str]) -> Image.Image:
    """Images uint8 [N, C, H, W] with the prompts in turn, a prompt a row, its text on the left.

    N is a multiple of their number, so that no place is empty.
    """
    sheet = grid(class_rows(images, len(prompts)), len(images) // len(prompts))
    labelled = Image.new("RGB", (TEXT_WIDTH + sheet.width, sheet.height), "white")
    labelled.paste(sheet, (TEXT_WIDTH, 0))
    draw, height = ImageDraw.Draw(labelled), sheet.height // len(prompts)
    for row, prompt in enumerate(prompts):
        # As many lines as the row is high; a line of PIL's own font has 15 pixels.
        lines = textwrap.wrap(prompt, LETTERS, max_lines=max(height // 15, 1), placeholder=" ...")
        draw.text((4, row * height + 2), "\n".join(lines), fill="black")
    return labelled
