"""Readers of what data sets come in: a folder, a zip, a tar or many, an LMDB; one stream of named
files for all.

Nothing is ever unpacked to disk. A compressed tar is read front to back, since xz and zstd cannot
seek; of another one what nobody asks for is passed over. The LMDB of raw pixels that DMD2's authors
publish is read as if it were EDM's zip: PPM images and a dataset.json.
"""

import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, Any, NamedTuple

import numpy as np

from dmd2.io.files import key_of

TAR_MODES = {
    "tar": "r:",
    "tar.gz": "r|gz",
    "tgz": "r|gz",
    "tar.xz": "r|xz",
    "txz": "r|xz",
    "tar.zst": "r|",
}


class Member(NamedTuple):
    """One file of a source: its name inside, with forward slashes, and its bytes.

    `read` works until the next member is asked for; where `lasting`, at any time and in any thread.
    """

    name: str
    read: Callable[[], bytes]
    lasting: bool = False


def members(source: Path) -> Iterator[Member]:
    """The files of a folder or archive, in stored order.

    Raises FileNotFoundError where there is nothing at `source`, ValueError for an unknown or
    damaged
    archive and for a member that points outside of it, ImportError for .zst without `zstandard` and
    for
    an LMDB without `lmdb`.
    """
    _require(source)
    if (source / "data.mdb").exists():
        return _lmdb(source)
    if shards := sorted(source.glob("*.tar")):
        return _shards(shards)
    if source.is_dir():
        return _folder(source)
    if source.name.endswith(".zip"):
        return _zip(source)
    for suffix, mode in TAR_MODES.items():
        if source.name.endswith(f".{suffix}"):
            return _tar(source, mode)
    raise ValueError(
        f"cannot read {source}; a source is a folder, an LMDB, .zip or .{', .'.join(TAR_MODES)}"
    )


def identity(source: Path) -> dict[str, Any]:
    """What changes when the source does: its place, and names, sizes and times of its files, which
    are not opened.
    """
    _require(source)
    files = (
        [(str(path.relative_to(source)), path.stat()) for path in _walk(source)]
        if source.is_dir()
        else []
    )
    files = files or [(source.name, source.stat())]
    newest, stat = max(files, key=lambda file: (file[1].st_mtime_ns, file[0]))
    return {
        "path": str(source.resolve()),
        "num_files": len(files),
        "num_bytes": sum(stat.st_size for _, stat in files),
        "newest": f"{newest} of {_when(stat.st_mtime_ns)}",
        "names_sizes_times": key_of(
            [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
        ),
    }


def _when(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}.{ns % 10**9:09d} UTC"


def _require(source: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(
            f"no data at {source}; a source is a folder, a zip, a tar or an LMDB"
        )


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(where, name) for name in sorted(files))


def _folder(source: Path) -> Iterator[Member]:
    for path in _walk(source):
        yield Member(path.relative_to(source).as_posix(), path.read_bytes, lasting=True)


def _shards(shards: Sequence[Path]) -> Iterator[Member]:
    """The files of a folder's tars, one after the other, each tar a folder of its own: webdataset's
    layout.
    """
    for shard in shards:
        for member in _tar(shard, TAR_MODES["tar"]):
            yield member._replace(name=f"{shard.stem}/{member.name}")


def _zip(source: Path) -> Iterator[Member]:
    with _damage(source), zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(
                    _inside(info.filename, source), partial(_read_zip, archive, info, source)
                )


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> bytes:
    with _damage(source):
        return archive.read(info)


def _tar(source: Path, mode: str) -> Iterator[Member]:
    with _damage(source), source.open("rb") as file:
        stream = _unzstd(file) if source.name.endswith(".zst") else file
        with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                archive.members = []  # Or a million headers stay in memory.
                if info.issym() or info.islnk():
                    raise ValueError(
                        f"{info.name} in {source} is a link; pack with tar --dereference "
                        "--hard-dereference"
                    )
                if info.isfile():
                    yield Member(
                        _inside(info.name, source), partial(_read_tar, archive, info, source)
                    )


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, source: Path) -> bytes:
    with _damage(source):
        file = archive.extractfile(info)
        assert file is not None
        return file.read()


def _unzstd(file: IO[bytes]) -> IO[bytes]:
    try:
        import zstandard  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .tar.zst needs zstandard; type: pip install 'dmd2[zstd]'"
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _lmdb(source: Path) -> Iterator[Member]:
    """Keys images_I_data (uint8 [C, H, W]), labels_I_data (int64), images_shape and labels_shape
    (decimal).
    """
    try:
        import lmdb  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("reading an LMDB needs lmdb; type: pip install 'dmd2[lmdb]'") from error
    try:
        with (
            lmdb.open(str(source), readonly=True, lock=False, readahead=False) as database,
            database.begin() as values,
        ):
            num, *shape = map(int, _value(values, "images_shape", source).split())
            names = [f"{i:08d}.{'ppm' if shape[0] == 3 else 'pgm'}" for i in range(num)]
            yield Member("dataset.json", partial(_lmdb_labels, values, names, source))
            for i, name in enumerate(names):
                yield Member(name, partial(_lmdb_image, values, i, shape, source))
    except lmdb.Error as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error


def _lmdb_labels(values: Any, names: list[str], source: Path) -> bytes:
    labels = (
        np.frombuffer(_value(values, f"labels_{i}_data", source), np.int64)
        for i in range(len(names))
    )
    return json.dumps(
        {"labels": [[name, int(label[0])] for name, label in zip(names, labels, strict=True)]}
    ).encode()


def _lmdb_image(values: Any, i: int, shape: list[int], source: Path) -> bytes:
    """Pixels [C, H, W] as a binary PPM, or PGM where C is 1."""
    channels, height, width = shape
    data = _value(values, f"images_{i}_data", source)
    if len(data) != channels * height * width:
        raise ValueError(
            f"images_{i}_data in {source} has {len(data)} bytes, its shape is {shape}; fetch it "
            "again"
        )
    pixels = np.frombuffer(data, np.uint8).reshape(shape).transpose(1, 2, 0)
    return b"P%d %d %d 255\n" % (6 if channels == 3 else 5, width, height) + pixels.tobytes()


def _value(values: Any, key: str, source: Path) -> bytes:
    if (found := values.get(key.encode())) is None:
        raise ValueError(
            f"{source} lacks the key {key}; an LMDB holds images_0_data, images_shape and labels "
            "alike"
        )
    return found


def _inside(name: str, source: Path) -> str:
    """The name in one spelling; refused where it leads out of the archive."""
    path = PureWindowsPath(name)  # Knows both slashes and drive letters.
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{source} holds the unsafe name {name!r}; pack it again with relative names"
        )
    return path.as_posix()


@contextmanager
def _damage(source: Path) -> Iterator[None]:
    """Names the archive where its bytes do not make sense."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error
