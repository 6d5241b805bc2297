"""An image with a colour profile is trained on in sRGB, as a viewer shows it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile

from dmd2.data.preparation.colour_profile import CONVERTED, UNUSABLE
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.picture import kind
from dmd2.data.preparation.recipes import images

ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of Adobe RGB's three primaries, under ICC's white (D50)."""
GAMMA = 2 + 51 / 256
STORED = (200, 100, 50)


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(space: bytes) -> bytes:
    """A version 2 profile (ICC.1:2001) of Adobe RGB, or of grey of its gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(GAMMA * 256), 0)
    parts = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"t\0" + bytes(78)}
    parts |= {b"cprt": b"text\0\0\0\0t\0\0\0"}
    parts |= {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    for letter, primary in zip(b"rgb" if space == b"RGB " else b"k", ADOBE, strict=False):
        parts[bytes([letter]) + b"TRC"] = curve
        parts[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*primary)
    at, table, body = 132 + 12 * len(parts), struct.pack(">I", len(parts)), b""
    for name, part in parts.items():
        table += name + struct.pack(">II", at + len(body), len(part))
        body += part
    head = struct.pack(">IIIII", at + len(body), 0, 0x02400000, 0, 0)
    head = head[:12] + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    return head + fixed(0.9642, 1, 0.8249) + bytes(48) + table + body


def to_srgb(values: np.ndarray, mixes: bool) -> np.ndarray:
    """Colours 0 ... 255 of Adobe RGB in sRGB (IEC 61966-2-1), by the definitions of both."""
    linear = (np.asarray(values) / 255) ** GAMMA
    if mixes:
        d50 = np.array(ADOBE).T @ linear
        to_linear = [
            (3.1338561, -1.6168667, -0.4906146),  # Lindbloom, XYZ of D50 to sRGB
            (-0.9787684, 1.9161415, 0.0334540),
            (0.0719453, -0.2289914, 1.4052427),
        ]
        linear = np.array(to_linear) @ d50
    linear = linear.clip(0, 1)
    low = linear <= 0.0031308
    return 255 * np.where(low, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


WIDE, GREY = profile(b"RGB "), profile(b"GRAY")
SRGB, LAB, XYZ = (ImageCmsProfile(createProfile(name)).tobytes() for name in ("sRGB", "LAB", "XYZ"))


def encoded(image: Image.Image, format_: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def filled(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (8, 8), STORED).convert(mode)


def shown(data: bytes, **options) -> np.ndarray:
    """The one colour of an image."""
    pixels = Decoder(8, **options)(data, "a")
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].astype(int)


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("jpeg", "RGB"), ("webp", "RGB"), ("png", "RGB"), ("png", "RGBA"), ("tiff", "RGBA")],
)
def test_a_wide_gamut_becomes_srgb(format_: str, mode: str) -> None:
    options = {"lossless": True} if format_ == "webp" else {}
    data = encoded(filled(mode), format_, icc_profile=WIDE, **options)
    assert abs(shown(data) - to_srgb(np.array(STORED), mixes=True)).max() <= 2
    assert kind(data) == f"{format_.upper()} {mode} ({CONVERTED})"


def test_a_palette_becomes_srgb() -> None:
    data = encoded(filled().quantize(2), icc_profile=WIDE)
    stored = shown(encoded(filled().quantize(2)))
    assert abs(shown(data) - to_srgb(stored, mixes=True)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("own", [WIDE, GREY], ids=["of colour", "of grey"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_becomes_the_grey_of_srgb(mode: str, own: bytes, channels: int) -> None:
    image = Image.new("L", (8, 8), 20).convert(mode)
    expected = to_srgb(np.array(20), mixes=False)
    assert abs(shown(encoded(image, icc_profile=own), channels=channels) - expected).max() <= 1
    assert abs(expected - 20) > 3


def test_16_bits_of_grey_become_srgb() -> None:
    image = Image.fromarray(np.full((8, 8), 20 * 256 + 7, np.uint16))
    found = shown(encoded(image, icc_profile=GREY))
    assert abs(found - to_srgb(np.array(20), mixes=False)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stays_so(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (*STORED, 0))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    assert (shown(encoded(image, icc_profile=WIDE), background="#405060") == (64, 80, 96)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1"])
def test_srgb_keeps_its_pixels(mode: str) -> None:
    plain, tagged = (encoded(filled(mode), **o) for o in ({}, {"icc_profile": SRGB}))
    np.testing.assert_array_equal(Decoder(8)(plain, "a"), Decoder(8)(tagged, "a"))
    assert kind(tagged) == f"PNG {mode}"


def broken_stream() -> bytes:
    """A PNG whose profile is no zlib stream: PIL gives None for it."""
    body = b"iCCPa\0\0garbage"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = encoded(filled())
    return data[:33] + chunk + data[33:]


UNFIT = {
    "empty": encoded(filled(), "tiff", icc_profile=b"\0"),
    "garbage": encoded(filled(), icc_profile=b"x" * 300),
    "truncated": encoded(filled(), icc_profile=WIDE[:200]),
    "of grey": encoded(filled(), icc_profile=GREY),
    "of Lab": encoded(filled(), icc_profile=LAB),
    "of XYZ": encoded(filled(), icc_profile=XYZ),
    "no stream": broken_stream(),
}


@pytest.mark.parametrize("data", UNFIT.values(), ids=UNFIT)
def test_a_profile_that_cannot_be_used_is_said_and_the_image_is_srgb(data: bytes) -> None:
    assert tuple(shown(data)) == STORED
    assert kind(data).endswith(f" RGB ({UNUSABLE})")


def test_cmyk_without_a_profile_of_its_own_is_read_as_before() -> None:
    plain, tagged = (encoded(filled("CMYK"), "jpeg", **o) for o in ({}, {"icc_profile": WIDE}))
    np.testing.assert_array_equal(shown(plain), shown(tagged))


def test_any_damage_to_a_profile_is_an_image_of_three_channels() -> None:
    for at in range(0, len(WIDE), 3):
        for bit in (1, 0x80):
            damaged = bytearray(WIDE)
            damaged[at] ^= bit
            data = encoded(filled(), icc_profile=bytes(damaged))
            assert shown(data).shape == (3,) and kind(data).startswith("PNG RGB")


def test_the_report_counts_them(tmp_path: Path, pack) -> None:
    plain, wide = encoded(filled()), encoded(filled(), icc_profile=WIDE)
    files = {"a/0.png": plain, "a/1.png": wide, "b/0.png": wide, "b/1.png": UNFIT["garbage"]}
    lines = images(pack(tmp_path / "a", files), tmp_path / "out", Decoder(8), 0.0, None, "stop")
    assert f"2 PNG RGB ({CONVERTED}), 1 PNG RGB, 1 PNG RGB ({UNUSABLE})" in "\n".join(lines)
