import io
import sys
import tarfile
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from dmd2.data.preparation.archives import identity, members

CIFAR10 = Path(__file__).parents[3] / "shared/data/cifar10.tar.xz"
SUFFIXES = ["folder", "zip", "tar", "tar.gz", "tar.xz", "tar.zst"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_packing_gives_the_same_files(packed, files, suffix):
    assert {member.name: member.read() for member in members(packed(suffix))} == files


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "a/../../b.png", "a\\..\\b.png", "C:\\a.png"]
)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path, pack, suffix, name):
    source = pack(tmp_path / f"bad.{suffix}", {name: b""})
    with pytest.raises(ValueError, match="unsafe name"):
        list(members(source))


def test_a_leading_dot_is_no_folder(tmp_path, pack):
    source = pack(tmp_path / "a.tar", {"./cat/1.png": b"x"})
    assert [member.name for member in members(source)] == ["cat/1.png"]


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ValueError, match="is a link"):
        list(members(tmp_path / "a.tar"))


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_damaged_archive_is_named(packed, suffix):
    source = packed(suffix)
    source.write_bytes(source.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"images\.\S+ is damaged"):
        [member.read() for member in members(source)]


def test_unknown_and_missing_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data at"):
        members(tmp_path / "none.zip")
    with pytest.raises(FileNotFoundError, match="no data at"):
        identity(tmp_path / "none.zip")
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read \S+a\.rar; a source is"):
        members(tmp_path / "a.rar")


def test_zstd_missing_says_what_to_install(packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"EXTRAS=dev,zstd, or pip install '\.\[zstd\]'"):
        list(members(packed("tar.zst")))


def test_identity_changes_with_the_files(packed):
    source = packed("folder")
    before = identity(source)
    assert before == identity(source)
    (source / "ant/new.png").write_bytes(b"x")
    assert identity(source) != before


@pytest.mark.skipif(not CIFAR10.exists(), reason="CIFAR-10 is not beside the repository")
def test_first_images_of_cifar10():
    for member in islice(members(CIFAR10), 50):
        split, _, name = member.name.split("/")
        assert split == "train" and name.endswith(".jpg")
        assert Image.open(io.BytesIO(member.read())).size == (32, 32)
