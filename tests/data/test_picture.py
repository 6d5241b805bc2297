"""What a viewer shows is what is trained on, and only the formats that are meant are opened."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.picture import FORMATS, UPRIGHT, is_image, kind

# Four colours, so that every turn and mirror image is another picture.
SHOWN = Image.new("RGB", (16, 16))
for place, colour in {(0, 0): "red", (8, 0): "lime", (0, 8): "blue", (8, 8): "white"}.items():
    SHOWN.paste(Image.new("RGB", (8, 8), colour), place)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def back(image: Image.Image, orientation: int) -> Image.Image:
    """As a camera that is held in this orientation stores it."""
    turn = UPRIGHT.get(orientation)
    quarter = {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270}
    if turn is None:
        return image
    if turn in quarter:
        (turn,) = quarter - {turn}
    return image.transpose(turn)


def pixels(data: bytes, **options) -> np.ndarray:
    return Decoder(**{"resolution": 16} | options)(data, "a").transpose(1, 2, 0)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format_", ["png", "jpeg", "webp", "tiff"])
def test_every_orientation_is_shown_upright(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_ == "webp" else {}
    options |= {"quality": 100, "subsampling": 0} if format_ == "jpeg" else {}
    data = encoded(back(SHOWN, orientation), format_, exif=exif, **options)
    assert abs(pixels(data).astype(int) - np.asarray(SHOWN)).max() <= 3


def test_damaged_exif_turns_nothing() -> None:
    data = encoded(SHOWN, "png", exif=b"Exif\0\0" + os.urandom(4) + b"\xff" * 40)
    np.testing.assert_array_equal(pixels(data), SHOWN)


def half_transparent(mode: str) -> Image.Image:
    """Black, whose left half is fully transparent, and of which nobody ever saw the red there."""
    image = Image.new("RGBA", (16, 16), "black")
    image.paste((255, 0, 0, 0), (0, 0, 8, 16))
    return image.convert(mode) if mode != "P" else image.quantize(4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "value"), [("white", 255), ("#808080", 128), ("black", 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_shows_the_background(
    mode: str, background: str, value: int, channels: int
) -> None:
    found = pixels(encoded(half_transparent(mode), "png"), background=background, channels=channels)
    assert (found[:, :8] == value).all() and (found[:, 8:] == 0).all()


def test_one_colour_may_be_transparent() -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste((255, 0, 0), (0, 0, 8, 16))
    found = pixels(encoded(image, "png", transparency=(255, 0, 0)))
    assert (found[:, :8] == 255).all() and (found[:, 8:] == 0).all()


@pytest.mark.parametrize("background", ["nothing", "#12", 3])
def test_a_background_is_a_colour(background) -> None:
    with pytest.raises(ValueError, match=f"background must be a colour, got {background}"):
        Decoder(8, background=background)


@pytest.mark.parametrize("format_", ["gif", "webp", "png", "tiff"])
def test_of_several_frames_the_first_is_shown_and_it_is_said(format_: str) -> None:
    rest = [Image.new("RGB", (16, 16), "lime")]
    options = {"lossless": True} if format_ == "webp" else {}
    data = encoded(SHOWN, format_, save_all=True, append_images=rest, **options)
    np.testing.assert_array_equal(pixels(data), SHOWN)
    assert kind(data).endswith("(the first of several frames)")
    assert "frames" not in kind(encoded(SHOWN, format_))


def test_16_bits_of_a_pgm_are_scaled() -> None:
    data = b"P5 16 16 65535\n" + np.full((16, 16), 100 * 256 + 7, ">u2").tobytes()
    assert abs(pixels(data).astype(int) - 100).max() <= 1


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)])
def test_numbers_of_no_known_range_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"the image a .*no known range"):
        pixels(encoded(Image.fromarray(image), "tiff"))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.eps"])
def test_no_name_makes_postscript_run(name: str, tmp_path: Path, monkeypatch) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n[ $1 = --version ] && echo 10.02.1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match=f"cannot read the image {name}"):
        Decoder(8)(EPS, name)
    assert not (tmp_path / "ran").exists()


def test_only_the_formats_that_are_meant_are_opened() -> None:
    Image.init()
    for format_ in sorted(set(Image.SAVE) & set(Image.OPEN) - set(FORMATS)):
        file = io.BytesIO()
        try:
            SHOWN.convert("L").save(file, format_)
        except (OSError, KeyError, ValueError, TypeError, AttributeError):
            continue  # PIL was built without it, or it wants other options
        if Image.open(io.BytesIO(file.getvalue())).format in {*FORMATS, "MPO"}:
            continue  # another name of one that is meant
        with pytest.raises(ValueError, match=r"cannot read the image x\.png"):
            Decoder(8)(file.getvalue(), "x.png")


@pytest.mark.parametrize("suffix", ["png", "JPG", "jpeg", "webp", "bmp", "gif", "tif", "tiff"])
def test_their_suffixes_are_images(suffix: str) -> None:
    assert is_image(f"a/b.{suffix}") and not is_image(f".a/b.{suffix}")
    assert not is_image("a/b.eps") and not is_image("a/b.pdf") and not is_image(suffix)
