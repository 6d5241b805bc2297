"""Preprocessing for detectors: clean-fid's own resize, PIL's squares, patches of every pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from dmd2.metrics.preprocessing import Patch, Square, picture, pixels, scaled


def drawn(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (40, 300)])
def test_resizing_is_clean_fid_s(size: tuple[int, int]) -> None:
    theirs = pytest.importorskip(
        "cleanfid.resize", reason="clean-fid is not installed (extra: eval)"
    )
    image = drawn(*size)
    expected = theirs.build_resizer("clean")(np.asarray(image))
    torch.testing.assert_close(
        scaled(image, 299), torch.from_numpy(expected).permute(2, 0, 1), rtol=0, atol=0
    )


def test_a_square_is_the_middle_scaled_by_pil() -> None:
    image = drawn(30, 20)
    expected = image.crop((5, 0, 25, 20)).resize((8, 8), Image.Resampling.LANCZOS)
    assert np.array_equal(Square(8)(image), expected)
    assert np.array_equal(Square(20)(image), image.crop((5, 0, 25, 20)))


def test_a_patch_keeps_its_pixels_and_small_images_stay_whole() -> None:
    image = drawn(30, 20)
    assert np.array_equal(Patch(10)(image), np.asarray(image)[5:15, 10:20])
    assert Patch(25)(image) is image


def test_pixels_come_back() -> None:
    x = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert torch.equal(pixels(picture(x)), x.float())
    assert torch.equal(pixels(picture(x[:1])), x[:1].float().expand(3, -1, -1))
