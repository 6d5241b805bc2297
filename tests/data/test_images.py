import io
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmd2.cli.errors import one_line
from dmd2.data.images import Images
from dmd2.data.preparation import decode_blocks
from dmd2.data.preparation.decode import Decoder


def images(source, tmp_path, **options):
    defaults = {"resolution": 6, "cache": tmp_path / "cache", "batch_size": 4, "seed": 0}
    data = Images(source, **defaults | options)
    data.prepare_data()
    data.setup()
    return data


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)


@pytest.mark.parametrize("suffix", ["folder", "zip", "tar.gz", "tar.xz", "tar.zst", "edm.zip"])
def test_every_packing_is_the_same_data(packed, files, tmp_path, suffix):
    data = images(packed(suffix), tmp_path)
    assert isinstance(data.train.x, np.memmap) and data.train.x.dtype == np.uint8
    np.testing.assert_array_equal(data.train.x, [pixels_of(files[name]) for name in sorted(files)])
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.class_names == (list("012") if suffix == "edm.zip" else ["ant", "cat", "dog"])
    assert data.shape == (3, 6, 6) and data.num_classes == 3 and len(data.test) == 0


def test_a_source_is_decoded_once(packed, tmp_path, monkeypatch):
    source = packed("tar")
    before = images(source, tmp_path).train.x.copy()
    monkeypatch.setattr(decode_blocks, "members", lambda source: pytest.fail("decoded again"))
    np.testing.assert_array_equal(images(source, tmp_path).train.x, before)


def test_processes_that_decode_at_once_agree(packed, tmp_path):
    source = packed("zip")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        several = list(pool.map(images, [source] * 2, [tmp_path] * 2))
    assert len({data.fingerprint() for data in several}) == 1
    assert [path.name for path in (tmp_path / "cache").glob("[!.]*")] == [several[0].folder.name]


def test_the_key_knows_options_and_source(packed, tmp_path):
    source = packed("zip")

    def fingerprint(**options):
        common = {"resolution": 6, "cache": tmp_path, "batch_size": 1, "seed": 0}
        return Images(source, **common | options).fingerprint()

    keys = [fingerprint(**options) for options in OPTIONS]
    source.write_bytes(source.read_bytes() + b"\0")
    assert len({*keys, fingerprint()}) == len(OPTIONS) + 1
    assert fingerprint(batch_size=2, seed=3, flip=True) == fingerprint()


OPTIONS = [
    {},
    {"resolution": 4},
    {"resize": "box"},
    {"crop": "none"},
    {"channels": 1},
    {"test_fraction": 0.5},
    {"num_classes": 9},
]


@pytest.mark.parametrize("wrapper, held_out", [("", "test"), ("", "val"), ("cifar/", "test")])
def test_split_folders_are_the_splits(files, tmp_path, pack, wrapper, held_out):
    names = sorted(files)
    split = {
        f"{wrapper}{'train' if i % 4 else held_out}/{name}": files[name]
        for i, name in enumerate(names)
    }
    data = images(pack(tmp_path / "a.zip", split), tmp_path)
    assert data.class_names == ["ant", "cat", "dog"]
    assert (
        data.test.labels.tolist() == [0, 1, 2]
        and data.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    )
    np.testing.assert_array_equal(data.test.x, [pixels_of(files[name]) for name in names[::4]])
    with pytest.raises(ValueError, match="its own test split"):
        images(tmp_path / "a.zip", tmp_path, test_fraction=0.1)


def test_a_fraction_of_each_class_is_held_out(packed, tmp_path):
    data = images(packed("folder"), tmp_path, test_fraction=0.25)
    assert sorted(data.test.labels) == [0, 1, 2] and len(data.train) == 9
    both = {image.tobytes() for split in (data.train, data.test) for image in split.x}
    assert len(both) == 12


@pytest.mark.parametrize("kind", ["flat", "null"])
def test_unlabelled_images(files, tmp_path, pack, edm, kind):
    flat = {name.replace("/", "-"): data for name, data in files.items()}
    inside = flat if kind == "flat" else edm(files, None)
    data = images(pack(tmp_path / "a.tar", inside), tmp_path)
    assert data.num_classes == 0 and data.class_names == [] and data.provides() == {"real"}
    assert data.train.labels.tolist() == [0] * 12


def test_room_for_classes_not_shown(packed, tmp_path):
    source = packed("folder")
    data = images(source, tmp_path, num_classes=5)
    assert data.num_classes == 5 and data.class_names == ["ant", "cat", "dog", "3", "4"]
    with pytest.raises(ValueError, match="out of range for 2 classes"):
        images(source, tmp_path, num_classes=2)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GREY = Image.fromarray(np.full((4, 4), 100, np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        encoded(GREY, "png"),
        encoded(GREY.convert("CMYK"), "jpeg", quality=100),
        encoded(GREY.convert("P"), "gif"),
        encoded(GREY.convert("RGBA"), "webp", lossless=True),
        encoded(GREY.convert("RGB"), "bmp"),
        encoded(Image.fromarray(np.full((4, 4), 100 * 256 + 7, np.uint16)), "png"),
    ],
    ids=["grey", "cmyk", "palette", "alpha", "bmp", "16 bits"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_converted(data, channels):
    pixels = Decoder(4, channels=channels)(data, "a")
    assert pixels.shape == (channels, 4, 4) and pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - 100).max() <= 1


def test_crop_keeps_the_middle_and_none_squashes():
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    wide = encoded(Image.fromarray(pixels), "png")
    assert (Decoder(4)(wide, "a") == 255).all()
    assert (Decoder(2, resize="box")(wide, "a") == 255).all()
    assert (Decoder(2)(wide, "a") == 255).all(), "what is cut away does not bleed in"
    squashed = Decoder(3, resize="box", crop="none")(wide, "a")
    assert squashed[0].tolist() == [[0, 255, 0]] * 3


def test_adm_halves_then_scales():
    """Against the steps of Dhariwal & Nichol's `center_crop_arr`, written out."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 26, 3), np.uint8))
    half = image.resize((13, 10), Image.Resampling.BOX).resize((8, 6), Image.Resampling.BICUBIC)
    expected = np.asarray(half)[:, 1:7].transpose(2, 0, 1)
    np.testing.assert_array_equal(Decoder(6, resize="adm")(encoded(image, "png"), "a"), expected)


def test_a_corrupt_image_is_named_and_nothing_is_opened(files, tmp_path, pack):
    source = pack(tmp_path / "images", files | {"dog/0.png": files["dog/0.png"][:60]})
    with pytest.raises(ValueError, match=r"cannot read the image dog/0\.png"):
        images(source, tmp_path)
    with pytest.raises(FileNotFoundError, match="is not decoded"):
        Images(source, 6, tmp_path / "cache", batch_size=1, seed=0).setup()


def test_empty_and_confused_sources(files, tmp_path, pack):
    (tmp_path / "empty").mkdir()
    for source in (
        tmp_path / "empty",
        pack(tmp_path / "a.zip", {"cat/readme.txt": b"", "._b.png": b""}),
    ):
        with pytest.raises(ValueError, match="no images in"):
            images(source, tmp_path)
    with pytest.raises(ValueError, match=r"stray\.png in \S+ lies in no class folder"):
        images(pack(tmp_path / "b.zip", files | {"stray.png": files["cat/0.png"]}), tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[", "must read"),
        ('{"classes": []}', "must read"),
        ('{"labels": [["a.png", 1.5]]}', r"gives a\.png the label 1\.5"),
        ('{"labels": [["a.png", -1]]}', r"gives a\.png the label -1"),
        ('{"labels": [["a.png", true]]}', r"gives a\.png the label True"),
        ('{"labels": [["b.png", 1]]}', r"no label for a\.png"),
    ],
)
def test_labels_that_make_no_sense(files, tmp_path, pack, text, message):
    inside = {"a.png": files["cat/0.png"], "dataset.json": text.encode()}
    with pytest.raises(ValueError, match=message):
        images(pack(tmp_path / "a.zip", inside), tmp_path)


def test_labels_need_not_start_at_zero(files, tmp_path, pack):
    inside = {
        "a.png": files["cat/0.png"],
        "dataset.json": json.dumps({"labels": [["a.png", 6]]}).encode(),
    }
    data = images(pack(tmp_path / "a.zip", inside), tmp_path)
    assert data.train.labels.tolist() == [6] and data.num_classes == 7


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 0},
        {"resize": "magic"},
        {"crop": "left"},
        {"channels": 4},
        {"test_fraction": 1.0},
    ],
)
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        images(tmp_path, tmp_path, **options)


def test_not_prepared_says_so(packed, tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare_data"):
        Images(packed("zip"), 6, tmp_path / "cache", batch_size=1, seed=0).setup()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_that_shrink_under_a_run_are_named(packed, tmp_path, num_workers):
    data = images(packed("zip"), tmp_path, num_workers=num_workers)
    batches, path = iter(data.train_dataloader()), Path(data.train.x.filename)
    next(batches)
    whole = path.read_bytes()
    os.truncate(path, 200)
    with pytest.raises(OSError, match="shrank") as error:
        list(itertools.islice(batches, 10))  # some batches may have been read ahead
    assert one_line(error.value) == (
        f"{path} shrank from {len(whole)} to 200 bytes while it was read; put it back, and type "
        "the same command again"
    )
