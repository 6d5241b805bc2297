"""Archive readers: the files of a folder, zip, tar, webdataset or LMDB as one stream, by name.

Nothing is unpacked to disk. A compressed tar is read front to back, since xz and zstd cannot seek;
in an uncompressed one, files that nobody reads are skipped.
"""

import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from dmd2.data.preparation.lmdb_reader import lmdb_members
from dmd2.data.preparation.member import Member, damage_named, safe_name
from dmd2.io.files import key_of

# tarfile's modes: "r:" seeks, "r|" reads a stream. It knows no zstd, which is undone before.
TAR_MODES = {
    "tar": "r:",
    "tar.gz": "r|gz",
    "tgz": "r|gz",
    "tar.xz": "r|xz",
    "txz": "r|xz",
    "tar.zst": "r|",
}


def members(source: Path) -> Iterator[Member]:
    """The files of a folder or archive, in the order they are stored in.

    Raises FileNotFoundError without a source; ValueError for an unknown or damaged archive, and for
    a member whose name leads out of it; ImportError for .zst without `zstandard` and for an LMDB
    without `lmdb`.
    """
    _require(source)
    # Before plain folders: an LMDB and webdataset's tars lie in folders, too.
    if (source / "data.mdb").exists():
        return lmdb_members(source)
    if tars := sorted(source.glob("*.tar")):
        return _webdataset(tars)
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
    """What changes when the source does, as JSON values: its path, and names, sizes and times of
    its files. No file is opened.
    """
    _require(source)
    files = (
        [(str(path.relative_to(source)), path.stat()) for path in _walk(source)]
        if source.is_dir()
        else []
    )
    files = files or [(source.name, source.stat())]
    # Of files of the same time the last name, for the answer must not depend on the order.
    newest, stat = max(files, key=lambda file: (file[1].st_mtime_ns, file[0]))
    # The hash alone would do to see a change; the readable values tell the user which it was.
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
    # By integers: a float of seconds since 1970 has no room for nanoseconds.
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}.{ns % 10**9:09d} UTC"


def _require(source: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(
            f"no data at {source}; a source is a folder, a zip, a tar or an LMDB"
        )


def _walk(folder: Path) -> Iterator[Path]:
    # Links are followed, so that a data set may be put together of links to others.
    for where, folders, files in os.walk(folder, followlinks=True):
        folders.sort()  # in place, as os.walk documents: it goes down in this order
        yield from (Path(where, name) for name in sorted(files))


def _folder(source: Path) -> Iterator[Member]:
    for path in _walk(source):
        yield Member(path.relative_to(source).as_posix(), path.read_bytes, random_access=True)


def _webdataset(tars: Sequence[Path]) -> Iterator[Member]:
    """The files of a folder's tars, one tar after the other; each counts as a folder of its own."""
    for tar in tars:
        for member in _tar(tar, TAR_MODES["tar"]):
            yield member._replace(name=f"{tar.stem}/{member.name}")


def _zip(source: Path) -> Iterator[Member]:
    with damage_named(source), zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(
                    safe_name(info.filename, source), partial(_read_zip, archive, info, source)
                )


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> bytes:
    # Again, for an error here is raised in the caller, not inside the generator.
    with damage_named(source):
        return archive.read(info)


def _tar(source: Path, mode: str) -> Iterator[Member]:
    with damage_named(source), source.open("rb") as file:
        stream = _decompressed_zstd(file) if source.name.endswith(".zst") else file
        with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                # tarfile remembers every header: a million of them would stay in memory.
                archive.members = []
                # A link may lead out of the archive, or to a file that a stream has passed.
                if info.issym() or info.islnk():
                    raise ValueError(
                        f"{info.name} in {source} is a link; pack with tar --dereference "
                        "--hard-dereference"
                    )
                if info.isfile():
                    yield Member(
                        safe_name(info.name, source), partial(_read_tar, archive, info, source)
                    )


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, source: Path) -> bytes:
    with damage_named(source):
        file = archive.extractfile(info)
        assert file is not None
        return file.read()


def _decompressed_zstd(file: IO[bytes]) -> IO[bytes]:
    try:
        import zstandard  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "reading .tar.zst needs zstandard; type in the checkout: "
            "make install EXTRAS=dev,zstd, or pip install '.[zstd]'"
        ) from error
    # Across frames: parallel compressors write many, and the reader would stop after the first.
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
