"""Altered archives, and such that claim too much: one line, and no file lost without a word."""

import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from dmd2.cli.errors import one_line
from dmd2.data.preparation import member
from dmd2.data.preparation.archives import members
from dmd2.data.preparation.layout import lay_out

FILES = {f"{kind}/{i}.png": bytes([i]) * (100 + 300 * i) for kind in "ab" for i in range(4)}
BLOCK = tarfile.BLOCKSIZE


def read(source: Path) -> dict[str, bytes]:
    return {member.name: member.read() for member in members(source)}


def survives(source: Path, data: bytes) -> bool:
    """Whether the altered archive is read as the whole one; otherwise it is refused by name."""
    source.write_bytes(data)
    try:
        found = read(source)
    except (ValueError, OSError) as error:
        assert str(source) in str(error) and one_line(error), error
        return False
    lost = {name for name, data in FILES.items() if found.get(name) != data}
    assert not lost, f"{lost} lost or altered without a word"
    return True


def header_offsets(path: Path) -> list[int]:
    with tarfile.open(path) as archive:
        return [info.offset for info in archive.getmembers()]


def test_any_damage_to_any_byte_of_a_tar_s_headers_is_seen(tmp_path: Path, pack) -> None:
    source = pack(tmp_path / "a.tar", FILES)
    whole = source.read_bytes()
    assert read(source) == FILES
    for offset in header_offsets(source):
        for at in range(offset, offset + BLOCK, 1 if offset == BLOCK * 5 else 7):
            for bit in (1, 0x80):
                data = bytearray(whole)
                data[at] ^= bit
                # Two bytes of the checksum's own field, the end of the number, say nothing.
                if survives(source, bytes(data)):
                    assert at - offset in range(148, 156)


@pytest.mark.parametrize("block", [bytes(BLOCK), b"\xff" * BLOCK, b"x" * BLOCK])
def test_a_whole_header_that_is_overwritten_is_seen(tmp_path: Path, pack, block: bytes) -> None:
    source = pack(tmp_path / "a.tar", FILES)
    whole = source.read_bytes()
    for offset in header_offsets(source):
        assert not survives(source, whole[:offset] + block + whole[offset + BLOCK :])


def test_a_tar_that_breaks_off_anywhere_is_seen(tmp_path: Path, pack) -> None:
    source = pack(tmp_path / "a.tar", FILES)
    whole, end = source.read_bytes(), len(source.read_bytes().rstrip(b"\0"))
    last = -(-end // BLOCK) * BLOCK
    for size in [*range(0, last, BLOCK // 2), last, *header_offsets(source)]:
        assert not survives(source, whole[:size])
    assert survives(source, whole[: last + 2 * BLOCK])


PLACE = st.integers(0, 2**20)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.zst", "zip"])
@settings(max_examples=300)
@given(damage=st.lists(st.tuples(PLACE, st.integers(0, 255)), min_size=1, max_size=8), end=PLACE)
def test_any_damage_loses_nothing_without_a_word(
    tmp_path_factory, pack, suffix: str, damage: list[tuple[int, int]], end: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    source = folder / f"a.{suffix}"
    if not (kept := folder / f"whole.{suffix}").exists():
        folder.mkdir(exist_ok=True)
        pack(kept, FILES)
    whole = kept.read_bytes()
    # Outside headers a plain tar has no hashes, nor has this zstd; the images have their own.
    places = [o + i for o in header_offsets(kept) for i in range(BLOCK)] if suffix == "tar" else []
    if suffix == "tar.zst":
        whole = zstandard.ZstdCompressor(write_checksum=True).compress(zstandard.decompress(whole))
    data = bytearray(whole)
    for at, byte in damage:
        data[places[at % len(places)] if places else at % len(data)] = byte
    survives(source, bytes(data))
    survives(source, whole[: end % (len(whole) // 2)])


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.xz", "txz", "tar.zst"])
@pytest.mark.parametrize("data", [b"", b"garbage" * 99, bytes(10240), b"\x1f\x8b" + b"x" * 99])
def test_garbage_is_one_line(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.{suffix}"):
        lay_out(tmp_path / f"a.{suffix}", 0.0)


def test_a_list_that_a_damaged_length_shortens_is_seen(tmp_path: Path, pack) -> None:
    """The comment of the first entry made as long as the second entry: zipfile skips that."""
    source = pack(tmp_path / "a.zip", FILES)
    data = bytearray(source.read_bytes())
    first = data.index(b"PK\1\2")
    struct.pack_into("<H", data, first + 32, data.index(b"PK\1\2", first + 4) - first)
    assert not survives(source, bytes(data))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"b/3.png", b"b/" + bytes(5)),  # zipfile cuts the name at the NUL, and sees a folder
        (b"b/3.png", b"b/3.pn/"),
        (b"b/3.png", b"b/3.pnx"),  # no image, so nobody reads it
    ],
)
def test_a_damaged_name_in_the_list_of_a_zip_is_seen(tmp_path: Path, pack, old, new) -> None:
    source = pack(tmp_path / "a.zip", FILES)
    before, behind = source.read_bytes().rsplit(old, 1)
    source.write_bytes(before + new + behind)
    with pytest.raises(ValueError, match=r"a\.zip is damaged"):
        list(members(source))


def test_a_zip_of_which_the_end_was_zeroed_is_not_empty(tmp_path: Path, pack) -> None:
    source = pack(tmp_path / "a.zip", FILES)
    source.write_bytes(source.read_bytes()[:-18] + bytes(18))
    with pytest.raises(ValueError, match=r"a\.zip is damaged .its end says that it is empty"):
        list(members(source))


@pytest.mark.parametrize("pair", [("a.zip", "b.zip"), ("a.tar", "b.tar")])
def test_two_archives_in_one_file_are_not_half_read(tmp_path: Path, pack, pair) -> None:
    first, second = (pack(tmp_path / name, {name: b"x"}).read_bytes() for name in pair)
    joined = tmp_path / f"joined{pair[0][1:]}"
    joined.write_bytes(first + second)
    if joined.suffix == ".tar":
        with pytest.raises(ValueError, match=r"is damaged .there is more behind its end"):
            read(joined)
    else:  # a zip may stand behind anything, e.g. a program that unpacks it
        assert read(joined) == {"b.zip": b"x"}


def test_a_key_that_comes_twice_in_labels_is_named(tmp_path: Path, pack) -> None:
    text = b'{"labels": [["a.png", 1]], "labels": [["a.png", 0]]}'
    source = pack(tmp_path / "a.zip", {"a.png": b"", "dataset.json": text})
    with pytest.raises(ValueError, match=r"dataset\.json in \S+a\.zip .*'labels' comes twice"):
        lay_out(source, 0.0)


def claims(path: Path, size: int) -> Path:
    """A compressed tar of one file of so many zeros."""
    with lzma.open(path, "w", preset=0) as file:
        info = tarfile.TarInfo("a.png")
        info.size = size
        file.write(info.tobuf())
        for _ in range(64):
            file.write(bytes(2**20))
    return path


def test_sizes_are_bounded_before_anything_is_taken(tmp_path: Path, monkeypatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(48 * 2**20))
    with pytest.raises(ValueError, match=r"a\.png in \S+a\.zip claims 50,331,648 bytes packed in"):
        read(tmp_path / "a.zip")
    sparse = tmp_path / "folder" / "a.png"
    sparse.parent.mkdir()
    with sparse.open("wb") as file:
        file.truncate(2**33)
    for source in (claims(tmp_path / "a.tar.xz", 2**33), sparse.parent):
        with pytest.raises(ValueError, match=r"a\.png in \S+ has 8,589,934,592 bytes, more than"):
            read(source)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.png", b"12345")
    monkeypatch.setattr(member, "MAX_BYTES", 4)
    with pytest.raises(ValueError, match=r"a\.png in \S+b\.zip has 5 bytes, more than the 4"):
        read(tmp_path / "b.zip")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_records_of_a_tar_are_bounded(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 2**32
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(99)))
    with pytest.raises(ValueError, match=r"a\.tar\.xz is damaged .a header claims 4,294,967,296"):
        read(tmp_path / "a.tar.xz")


def test_a_size_below_zero_ends(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": "-1536"}
        archive.addfile(info, io.BytesIO())
    with pytest.raises(ValueError, match=r"is damaged .a header claims -1,536"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "dataset.json in .*a.zip must read"),
        ('{"labels": ' + "[" * 200_000, "dataset.json in .*a.zip must read"),
        ('{"labels": [["a.png", 1000000000]]}', "the label 1000000000; labels are .* to 999,999"),
        ('{"labels": [["a.png", 1' + "0" * 4000 + "]]}", "the label 1000.*labels are"),
        ('{"labels": [["a.png", 1' + "0" * 9000 + "]]}", "dataset.json in .*a.zip must read"),
        ('{"labels": [["a.png", 1], ["a.png", 2]]}', "lists an image twice"),
    ],
)
def test_lists_of_labels_are_bounded(tmp_path: Path, pack, text: str, words: str) -> None:
    source = pack(tmp_path / "a.zip", {"a.png": b"", "dataset.json": text.encode()})
    with pytest.raises(ValueError, match=words) as caught:
        lay_out(source, 0.0)
    assert len(str(caught.value)) < 500  # also below a long temporary folder


def test_an_encrypted_zip_says_so(tmp_path: Path, pack) -> None:
    source = pack(tmp_path / "a.zip", FILES)
    data = bytearray(source.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + at] |= 1
    source.write_bytes(data)
    with pytest.raises(ValueError, match=r"a/0\.png in \S+ is encrypted"):
        read(source)


@pytest.mark.parametrize(("at", "value"), [((6, 8), 1), ((8, 10), 9)])
def test_a_file_of_a_zip_that_nobody_reads_may_be_encrypted_or_packed_by_anything(
    tmp_path: Path, pack, at: tuple[int, int], value: int
) -> None:
    source = pack(tmp_path / "a.zip", {"README": b"of another program"} | FILES)
    data = bytearray(source.read_bytes())
    for signature, place in zip((b"PK\3\4", b"PK\1\2"), at, strict=True):
        data[data.index(signature) + place] = value
    source.write_bytes(data)
    assert {m.name: m.read() for m in members(source) if m.name != "README"} == FILES


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"images_shape": b"9999999999999 3 6 6"}, "claims 9,999,999,999,999 images"),
        ({"images_shape": b"1 3 99999999 6"}, "images_shape in .* expected"),
        ({"images_shape": b"1 3 6"}, "images_shape in .* expected"),
        ({"images_shape": b"many"}, "images_shape in .* expected"),
        ({"images_shape": b"1 3 6 6", "labels_0_data": b"1"}, "labels_0_data in .* has 1 bytes"),
    ],
)
def test_claims_of_an_lmdb_are_bounded(tmp_path: Path, values, words: str) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "a")) as database, database.begin(write=True) as into:
        for key, value in values.items():
            into.put(key.encode(), value)
    with pytest.raises(ValueError, match=words):
        lay_out(tmp_path / "a", 0.0)
