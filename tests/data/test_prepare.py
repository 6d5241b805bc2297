"""Preparing: broken files and kills on the way, and what a prepared folder refuses."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmd2.cli.main import main
from dmd2.data.images import Images
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder import ARRAYS
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.picture import kind
from dmd2.data.preparation.prepare import BLOCK, prepare
from dmd2.data.preparation.recipes import images

SAMPLE = Path(__file__).parents[3] / "shared/data/imagenet_sample"


def opened(folder: Path, **options) -> Images:
    data = Images(
        folder,
        **{"resolution": None, "cache": folder / "no cache", "batch_size": 4, "seed": 0} | options,
    )
    data.prepare_data()
    data.setup()
    assert not (folder / "no cache").exists()
    return data


def made(source: Path, out: Path, broken="stop", **options) -> Images:
    images(source, out, Decoder(**{"resolution": 6} | options), 0.0, None, broken)
    return opened(out)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_edm(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize(
        (64, 64), Image.Resampling.LANCZOS
    )


def as_adm(image: Image.Image) -> Image.Image:
    while min(image.size) >= 128:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = 64 / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (image.width - 64) // 2, (image.height - 64) // 2
    return image.crop((left, top, left + 64, top + 64))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no photographs in ../shared/data/imagenet_sample")
@pytest.mark.parametrize(("resize", "by_hand"), [("lanczos", as_edm), ("adm", as_adm)])
def test_photographs_through_the_verb(tmp_path, monkeypatch, capsys, resize, by_hand):
    """Either published resizing, written out here, of real photographs with their synsets'
    labels.
    """
    options = [f"recipe.decoder.resize={resize}", "recipe.num_classes=100"]
    command = [
        "dmd2",
        "prepare",
        "recipe=imagenet64",
        f"source={SAMPLE / 'train'}",
        f"out={tmp_path / 'out'}",
    ]
    monkeypatch.setattr(sys, "argv", command + options)
    main()
    assert "100 images to train on, 0 to test, 3 x 64 x 64, 100 classes" in capsys.readouterr().out
    data, files = opened(tmp_path / "out"), sorted(SAMPLE.glob("train/*/*"))
    assert data.class_names == [
        path.parent.name for path in files
    ] and data.train.labels.tolist() == [*range(100)]
    expected = [
        np.asarray(by_hand(Image.open(path).convert("RGB"))).transpose(2, 0, 1) for path in files
    ]
    # Published preparations ignore colour profiles; a few photographs have one that is no sRGB.
    plain = [i for i, path in enumerate(files) if "profile" not in kind(path.read_bytes())]
    assert len(plain) > 80
    np.testing.assert_array_equal(data.train.x[plain], np.stack(expected)[plain])
    monkeypatch.setattr(sys, "argv", command + options)
    main()
    assert "is finished" in capsys.readouterr().out


GREY = Image.fromarray(np.full((6, 6), 100, np.uint8))
WHOLE = {
    "JPEG CMYK": encoded(GREY.convert("CMYK"), "jpeg", quality=100),
    "JPEG L": encoded(GREY, "jpeg", quality=100),
    "PNG P": encoded(GREY.convert("P"), "png"),
    "PNG I;16": encoded(Image.fromarray(np.full((6, 6), 100 * 256 + 7, np.uint16)), "png"),
}
BROKEN = {
    "truncated": encoded(Image.effect_noise((64, 64), 50), "jpeg")[:-600],
    "empty": b"",
    "text": b"this is no image",
}


def test_odd_files_are_counted_and_broken_ones_are_left_out_by_name(tmp_path, pack):
    whole = {f"cat/{name}.png": data for name, data in WHOLE.items()}
    broken = {f"ant/{name}.jpg": data for name, data in BROKEN.items()}
    source = pack(tmp_path / "source", whole | broken | {"dog/a.png": WHOLE["JPEG L"]})
    lines = images(source, tmp_path / "out", Decoder(6), 0.0, None, "skip")
    data = opened(tmp_path / "out")
    assert data.class_names == ["ant", "cat", "dog"] and data.train.labels.tolist() == [
        1,
        1,
        1,
        1,
        2,
    ]
    assert data.train.x.shape == (5, 3, 6, 6) and abs(data.train.x.astype(int) - 100).max() <= 1
    assert "3 broken, left out: ant/empty.jpg, ant/text.jpg, ant/truncated.jpg" in lines
    assert lines[1] == "the files were 2 JPEG L, 1 JPEG CMYK, 1 PNG I;16, 1 PNG P"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_stops_by_default_and_what_was_done_is_kept(tmp_path, pack, name):
    source = pack(tmp_path / "a.zip", {"a.png": WHOLE["PNG P"], "b.png": BROKEN[name]})
    with pytest.raises(ValueError, match=r"b\.png.*recipe\.broken=skip"):
        made(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(made(source, tmp_path / "out", "skip").train) == 1


def test_nothing_but_broken_files_is_no_data(tmp_path, pack):
    with pytest.raises(ValueError, match=r"all 1 images to train on are broken, e\.g\. a\.png"):
        made(pack(tmp_path / "a.zip", {"a.png": b""}), tmp_path / "out", "skip")


def test_classes_that_a_source_lacks_would_shift_the_labels(packed, tmp_path):
    with pytest.raises(
        ValueError, match=r"shows 3 classes, the recipe wants 1000.*recipe\.num_classes=3"
    ):
        images(packed("zip"), tmp_path / "out", Decoder(6), 0.0, 1000, "stop")


DEADLY = """
import importlib, os, signal, sys
from pathlib import Path
from dmd2.data.preparation import prepare
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.layout import lay_out

module, name, calls = *sys.argv[1].split("."), int(sys.argv[2])
module = importlib.import_module(f"dmd2.data.preparation.{module}")
real = getattr(module, name)

def deadly(*arguments):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(module, name, deadly)
source, out = Path(sys.argv[3]), Path(sys.argv[4])
prepare.prepare(source, lay_out(source, 0.0), Decoder(4), out, "skip")
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """More images than two blocks hold, two of them broken."""
    folder, draw = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for i in range(2 * BLOCK + 9):
        where = folder / "ab"[i % 2] / f"{i:04d}.png"
        where.parent.mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (6, 6, 3), np.uint8)
        where.write_bytes(b"" if i in (3, BLOCK + 90) else encoded(Image.fromarray(pixels), "png"))
    return folder


@pytest.mark.parametrize(
    ("name", "calls", "num_blocks"),
    [
        ("decode_blocks.kind", BLOCK + 20, 1),
        ("finish.keep_rows", 1, 3),
        ("finish.write_manifest", 0, 3),
        ("prepare.discard", 0, 3),
    ],
)
def test_killed_and_begun_again_it_is_byte_for_byte_the_same(
    many, tmp_path, name, calls, num_blocks
):
    def run(out, name, calls):
        command = [sys.executable, "-c", DEADLY, name, str(calls), str(many), str(out)]
        return subprocess.run(command, timeout=600, capture_output=True).returncode

    assert run(tmp_path / "killed", name, calls) == -signal.SIGKILL
    assert (tmp_path / "killed").exists() == (name == "prepare.discard")
    assert len(list(tmp_path.glob("killed.partial/progress/*-*.json"))) == num_blocks
    for out in ("killed", "whole"):
        prepare(many, lay_out(many, 0.0), Decoder(4), tmp_path / out, "skip")
    whole, killed = (
        {p.name: p.read_bytes() for p in (tmp_path / out).iterdir()} for out in ("whole", "killed")
    )
    assert not (tmp_path / "killed.partial").exists()
    assert whole == killed and set(whole) == {*ARRAYS, "manifest.json"}
    assert len(np.load(tmp_path / "killed" / "train.npy")) == 2 * BLOCK + 7


def test_another_source_does_not_go_on_where_one_stopped(tmp_path, pack):
    with pytest.raises(ValueError, match="cannot read the image"):
        made(pack(tmp_path / "a.zip", {"a.png": b""}), tmp_path / "out")
    with pytest.raises(ValueError, match=r"out\.partial was begun from other files"):
        made(pack(tmp_path / "b.zip", {"a.png": WHOLE["PNG P"]}), tmp_path / "out")


def test_other_things_are_not_written_over(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="out holds other things"):
        made(packed("zip"), tmp_path / "out")


def test_an_lmdb_of_raw_pixels_is_the_same_data(files, tmp_path, pack, edm):
    lmdb = pytest.importorskip("lmdb")
    draw = np.random.default_rng(1)
    x, labels = draw.integers(0, 256, (11, 3, 6, 6), np.uint8), draw.integers(0, 5, 11)
    with (
        lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as values,
    ):
        values.put(b"images_shape", b"11 3 6 6")
        values.put(b"labels_shape", b"11")
        for i in range(11):
            values.put(f"images_{i}_data".encode(), x[i].tobytes())
            values.put(f"labels_{i}_data".encode(), labels[i].tobytes())
    data = made(tmp_path / "lmdb", tmp_path / "out")
    np.testing.assert_array_equal(data.train.x, x)
    np.testing.assert_array_equal(data.train.labels, labels)
    with lmdb.open(str(tmp_path / "lmdb")) as database, database.begin(write=True) as values:
        values.delete(b"images_7_data")
    with pytest.raises(ValueError, match="lacks the key images_7_data"):
        made(tmp_path / "lmdb", tmp_path / "again")


def test_prepared_and_decoded_in_passing_are_the_same(packed, tmp_path):
    source = packed("edm.zip")
    data = made(source, tmp_path / "out")
    passing = Images(source, 6, tmp_path / "cache", batch_size=4, seed=0)
    passing.prepare_data()
    passing.setup()
    np.testing.assert_array_equal(data.train.x, passing.train.x)
    assert (
        isinstance(data.train.x, np.memmap)
        and Path(data.train.x.filename) == tmp_path / "out" / "train.npy"
    )


def test_a_prepared_folder_is_itself_wherever_it_lies(packed, tmp_path):
    before = made(packed("folder"), tmp_path / "out").fingerprint()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert opened(tmp_path / "moved").fingerprint() == before


def test_options_that_were_not_prepared_are_refused(packed, tmp_path):
    source = packed("zip")
    made(source, tmp_path / "out", resize="adm")
    opened(tmp_path / "out", resize="adm", resolution=6, num_classes=9)
    with pytest.raises(
        ValueError, match=r"prepared with resize=adm, got lanczos; type data\.resize=adm"
    ):
        opened(tmp_path / "out", resize="lanczos")
    with pytest.raises(ValueError, match="has its splits"):
        opened(tmp_path / "out", test_fraction=0.1)
    with pytest.raises(
        ValueError, match=r"made with decoder .*'resize': 'adm'.* asked for .*'box'"
    ):
        made(source, tmp_path / "out", resize="box")


@pytest.mark.parametrize("name", ["train.npy", "train_labels.npy"])
def test_an_altered_a_truncated_and_a_missing_array_are_refused_by_name(packed, tmp_path, name):
    made(packed("zip"), tmp_path / "out")
    path = tmp_path / "out" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"out/{name} was altered"):
        opened(tmp_path / "out")
    path.write_bytes(data)
    opened(tmp_path / "out")
    path.write_bytes(data[:-1])
    os.utime(path, (0, 0))
    with pytest.raises(
        ValueError, match=rf"out/{name} has {len(data) - 1} bytes, its manifest says {len(data)}"
    ):
        opened(tmp_path / "out")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"out/{name} is missing"):
        opened(tmp_path / "out")


def test_rot_that_changes_no_date_is_found_by_preparing_again(packed, tmp_path):
    source = packed("zip")
    made(source, tmp_path / "out")
    path = tmp_path / "out" / "train.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, (0, 0))
    opened(tmp_path / "out")
    with pytest.raises(ValueError, match=r"train\.npy was altered"):
        made(source, tmp_path / "out")


def test_a_manifest_that_was_altered_is_refused(packed, tmp_path):
    made(packed("zip"), tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text().replace("cat", "cow"))
    with pytest.raises(
        ValueError, match=r"manifest\.json is damaged or was edited.*prepare it again"
    ):
        opened(tmp_path / "out")
