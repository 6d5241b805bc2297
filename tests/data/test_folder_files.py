"""Folders with traps in them: regular files are read, each once, and all else is counted."""

import os
import random
import socket
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dmd2.cli.main import main
from dmd2.data.images import Images
from dmd2.data.preparation.archives import members
from dmd2.data.preparation.captioned import captioned
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder_files import files_of
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.recipes import images

pytestmark = pytest.mark.timeout(60)


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_of(folder, {})]


def bound(path: Path) -> None:
    # By a relative name, since the address of a socket may be no longer than 108 bytes.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as it:
            it.bind(path.name)
    finally:
        os.chdir(here)


TRAPS = {
    "FIFO": os.mkfifo,
    "socket": bound,
    "link to nothing": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to what is read already": lambda path: path.symlink_to("."),
}


@pytest.mark.parametrize("kind", TRAPS)
def test_traps_are_counted_and_named_and_nothing_hangs(tmp_path, files, pack, kind) -> None:
    source = pack(tmp_path / "images", files)
    for name in ("ant/l.png", "cat/m.png"):
        TRAPS[kind](source / name)
    assert lay_out(source, 0.0).passed_over == {kind: (2, "ant/l.png")}
    lines = images(source, tmp_path / "out", Decoder(6), 0.0, None, "stop")
    assert f"passed over, with the first of each: 2 {kind} (ant/l.png)" in lines
    assert lines[0].startswith("12 images")


def test_links_around_and_in_circles_give_each_file_once(tmp_path: Path, pack) -> None:
    source = pack(tmp_path / "in" / "images", {f"{c}/{i}.png": b"" for c in "ab" for i in range(2)})
    pack(tmp_path / "out", {"x/1.png": b"", "y/2.png": b""})
    links = {"a/root": source, "a/up": tmp_path, "a/disk": "/", "b/other": "../a", "a0": "b"}
    # One target inside another, and one of a single file, which comes first by its name.
    links |= {"c": tmp_path / "out", "b/y": tmp_path / "out/y", "b/0": tmp_path / "out/x/1.png"}
    for name, target in links.items():
        (source / name).symlink_to(target)
    found = [os.path.realpath(path) for path in files_of(source, {})]
    expected = [*source.glob("[ab]/?.png"), *(tmp_path / "out").glob("*/?.png")]
    assert sorted(found) == sorted(map(str, expected))
    assert {"a/0.png", "b/0.png"} <= set(names(source)), "what lies there itself has its own name"


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_creation_changes_nothing(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    (tmp_path / "images").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o.png").touch()
    todo = [(f"{i}.png", None) for i in range(5)] + [(f"l{i}", "../other") for i in range(3)]
    for name, target in draw.sample(todo, len(todo)):
        path = tmp_path / "images" / name
        path.symlink_to(target) if target else path.touch()
    assert names(tmp_path / "images") == ["0.png", "1.png", "2.png", "3.png", "4.png", "l0/o.png"]


def test_a_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"a\.tar is neither a folder nor a regular file"):
        members(tmp_path / "a.tar")


def test_devices_in_a_tar_are_counted(tmp_path: Path, files, pack) -> None:
    source = pack(tmp_path / "a.tar", {})
    with tarfile.open(source, "w") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.type = tarfile.FIFOTYPE
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("a/1.png"))
    layout = lay_out(source, 0.0)
    assert layout.train == ["a/1.png"] and layout.passed_over == {"FIFO": (1, "a/0.png")}


@pytest.mark.parametrize("name", ["0.png", "sub/0.png", "b.tar.gz", "sub/b.zip"])
@pytest.mark.parametrize("scan", [lay_out, captioned])
def test_tars_with_other_images_beside_them_are_refused(tmp_path, files, pack, name, scan) -> None:
    source = pack(tmp_path / "images", {name: files["cat/0.png"]})
    pack(source / "old.tar", {"a.png": b"", "a.txt": b"a"})
    with pytest.raises(ValueError, match=rf"images holds old\.tar and beside it {name}, and only"):
        scan(source, 0.0 if scan is lay_out else "caption")


def test_what_has_no_row_is_counted_by_its_suffix(tmp_path: Path, files, pack, capsys) -> None:
    others = ["a.eps", "cat/b.PDF", "cat/c.pdf", "old.zip", "ant/README"]
    source = pack(tmp_path / "images", files | dict.fromkeys(others, b""))
    data = Images(source, 6, tmp_path / "cache", batch_size=4, seed=0)
    data.prepare_data()
    said = "1 .eps (a.eps), 2 .pdf (cat/b.PDF), 1 .zip (old.zip), 1 without a suffix (ant/README)"
    assert f"{source}: passed over, with the first of each: {said}" in capsys.readouterr().err
    data.setup()
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_captions_and_splits_that_nobody_reads_are_counted(tmp_path: Path, files, pack) -> None:
    inside = {f"{split}/a/0.png": b"" for split in ("train", "test", "val")}
    layout = lay_out(pack(tmp_path / "a.zip", inside), 0.0)
    assert layout.passed_over == {"images of val/ beside test/": (1, "val/a/0.png")}
    layout = captioned(
        pack(tmp_path / "b", {"a.png": b"", "a.txt": b"a", "b.txt": b"b", "c.json": b"{}"}),
        "caption",
    )
    assert layout.passed_over == {".json": (1, "c.json"), "captions of no image": (1, "b")}
    listed = {"a.png": b"", "dataset.json": b'{"labels": [["a.png", 1], ["b.png", 0]]}'}
    layout = lay_out(pack(tmp_path / "c.zip", listed), 0.0)
    assert layout.passed_over == {
        "names in dataset.json of no image with a row": (1, "b.png")
    } and np.array_equal([*layout.labels.values()], [1])


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_a_name_that_is_no_text_is_named(tmp_path: Path, pack, suffix: str) -> None:
    name = os.fsdecode(b"ant/\xff.png")
    with pytest.raises(ValueError, match=r"holds the name 'ant/\\udcff\.png'"):
        lay_out(pack(tmp_path / f"a{suffix}", {name: b""}), 0.0)


def test_a_disk_that_fails_at_reading_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mem")  # whose first bytes give EIO
    (member,) = members(tmp_path)
    with pytest.raises(OSError, match=r"Errno 5.*a\.png"):
        member.read()


def test_names_reach_no_terminal_as_they_are(tmp_path: Path, pack, files, capsys) -> None:
    image = files["ant/0.png"]
    source = pack(tmp_path / "images", {"a\x1b[2J/0.png": image, "b/1.png": b"nothing"})
    sys.argv = ["dmd2", "prepare", "recipe=imagenet64", f"source={source}", f"out={tmp_path}/out"]
    sys.argv += ["recipe.num_classes=null", "recipe.decoder.resolution=6"]
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "cannot read the image b/1.png (it is no BMP, GIF" in error
    sys.argv = ["dmd2", "prepare", "recipe=imagenet64", f"source={source}", f"out={tmp_path}/out"]
    sys.argv += ["recipe.num_classes=null", "recipe.decoder.resolution=6", "recipe.broken=skip"]
    main()
    said = capsys.readouterr()
    assert "labels are 0 a\\x1b[2J, 1 b" in said.out and "\x1b[2J" not in said.out + said.err
