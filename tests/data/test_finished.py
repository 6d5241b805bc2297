"""What is finished is compared with what is asked for; what is trusted has a hash of its own."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from test_blocks import queue_in
from test_latents import Halved, beside
from test_pairs import writer

from dmd2.data.pairs import PairStore, PairWriter
from dmd2.data.preparation import prepare as preparation
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder import open_prepared
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.prepare import prepare
from dmd2.data.preparation.recipes import images, latents
from dmd2.io.files import write_hashed_json


def made(source: Path, out: Path, **options) -> list[str]:
    asked = {"test_fraction": 0.0, "num_classes": None, "broken": "stop"} | options
    return images(source, out, asked.pop("decoder", Decoder(6)), **asked)


@pytest.fixture
def source(tmp_path: Path, pack, files) -> Path:
    made(pack(tmp_path / "images", files), tmp_path / "out")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test_fraction": 0.5}, "made with test_fraction 0.0, asked for 0.5"),
        ({"decoder": Decoder(7)}, "made with decoder .*'resolution': 6.* asked for .*: 7"),
        ({"decoder": Decoder(6, background="black")}, "'white'.* asked for .*'black'"),
        ({"num_classes": 4}, "shows 3 classes, the recipe wants 4"),
    ],
)
def test_a_finished_folder_of_other_options_is_refused(source, tmp_path, options, words) -> None:
    assert "is finished" in made(source, tmp_path / "out", num_classes=3)[0]
    with pytest.raises(ValueError, match=words):
        made(source, tmp_path / "out", **options)


def test_a_finished_folder_of_another_or_no_source_is_refused(
    source, tmp_path, pack, files
) -> None:
    other = pack(tmp_path / "other", dict(list(files.items())[:5]))
    with pytest.raises(
        ValueError, match=r"made with source .*/images.* asked for .*/other.*remove"
    ):
        made(other, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no data at .*gone"):
        made(tmp_path / "gone", tmp_path / "out")
    source.rename(tmp_path / "moved")
    assert "is finished" in made(tmp_path / "moved", tmp_path / "out")[0]
    os.utime(tmp_path / "moved" / "cat" / "0.png", (0, 0))
    with pytest.raises(ValueError, match="made with source"):
        made(tmp_path / "moved", tmp_path / "out")


def test_files_that_were_left_out_are_not_passed_for_a_whole(tmp_path, pack, files) -> None:
    source = pack(tmp_path / "images", files | {"cat/0.png": b""})
    made(source, tmp_path / "out", broken="skip")
    with pytest.raises(ValueError, match=r"recipe\.broken=skip, which left out 1 files"):
        made(source, tmp_path / "out")


def test_finished_latents_of_other_options_are_refused(tmp_path: Path) -> None:
    def of(source: str, codec: Halved, caption: str) -> list[str]:
        return latents(tmp_path / source, tmp_path / "out", Decoder(8), codec, caption, "stop")

    beside(tmp_path / "a")
    beside(tmp_path / "b", 6)
    of("a", Halved(), "caption")
    assert "is finished" in of("a", Halved(), "caption")[0]
    for asked, words in (
        (("b", Halved(), "caption"), "made with source"),
        (("a", Halved(), "text"), "made with caption caption, asked for text"),
        (("a", Halved(3.0), "caption"), "made with autoencoder .*2.0.* asked for .*3.0"),
    ):
        with pytest.raises(ValueError, match=words):
            of(*asked)


def test_a_source_that_changes_meanwhile_is_one_line(tmp_path, pack, files, monkeypatch) -> None:
    source = pack(tmp_path / "images", files)
    layout, decode = lay_out(source, 0.0), preparation.decode_blocks

    def decode_and_change(*arguments) -> None:
        decode(*arguments)
        (source / "cat/9.png").write_bytes(files["cat/0.png"])

    monkeypatch.setattr(preparation, "decode_blocks", decode_and_change)
    with pytest.raises(ValueError, match=r"images changed while it was read.*out\.partial"):
        prepare(source, layout, Decoder(6), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def pairs(folder: Path) -> PairWriter:
    store = writer(folder, num_pairs=1, shape=(2,), dtype="float16")
    return store


def finished_pairs(folder: Path) -> Path:
    store, x = pairs(folder), torch.zeros(1, 2)
    store.write(next(store.free()), x, x, torch.zeros(1))
    store.finish()
    return folder / "manifest.json"


def queue(folder: Path) -> Path:
    queue_in(folder)
    return folder / "progress" / "plan.json"


def prepared(folder: Path) -> Path:
    source = beside(folder.with_name("images"))
    images(source, folder, Decoder(6), 0.0, None, "stop")
    return folder / "manifest.json"


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (prepared, open_prepared),
        (finished_pairs, PairStore),
        (finished_pairs, pairs),
        (queue, queue_in),
    ],
)
def test_any_damage_to_what_is_trusted_is_one_line(tmp_path: Path, make, read) -> None:
    path, draw = make(tmp_path / "it"), random.Random(0)
    whole = path.read_bytes()
    read(tmp_path / "it")
    damaged = [b"", b"[]", b"12", b"null", b"{}", b"[" * 99_999, whole[:-9], b"\xff" + whole]
    damaged += [whole.replace(b"0", b"1", 1), whole.replace(b'"', b"'")]
    for _ in range(60):
        data = bytearray(whole)
        at = draw.choice([i for i, byte in enumerate(data) if not chr(byte).isspace()])
        data[at] ^= 1 << draw.randrange(8)
        damaged.append(bytes(data))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{path.name} is damaged.* remove "):
            read(tmp_path / "it")


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    write_hashed_json(tmp_path / "manifest.json", {"other": 1})
    for read in (open_prepared, PairStore, pairs):
        with pytest.raises(ValueError, match="is no manifest of"):
            read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"start": 1}', None])
def test_a_damaged_record_of_progress_is_done_again(tmp_path: Path, capsys, data) -> None:
    first = queue_in(tmp_path)
    for rows in first.free():
        first.record(rows, {"start": rows.start})
    path = tmp_path / "progress" / f"{4:012d}-{8:012d}.json"
    if data is None:
        data = json.dumps(json.loads(path.read_text()) | {"start": 5}).encode()
    path.write_bytes(data)
    again, done = queue_in(tmp_path), []
    for rows in again.free():
        done.append(rows)
        again.record(rows, {"start": rows.start})
    assert done == [range(4, 8)] and [found["start"] for found in again.results()] == [0, 4, 8]
    assert f"{path.name} is damaged" in capsys.readouterr().err


def test_a_copy_of_a_prepared_folder_is_still_one(source: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert len(open_prepared(tmp_path / "copy")[0]) == 12
