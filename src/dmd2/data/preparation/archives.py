"""Archive readers: the files of a folder, zip, tar, webdataset or LMDB as one stream, by name.

Nothing is unpacked to disk. A compressed tar is read front to back, since xz and zstd cannot seek;
in an uncompressed one, files that nobody reads are skipped.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dmd2.data.preparation.folder_files import files_of
from dmd2.data.preparation.lmdb_reader import lmdb_members
from dmd2.data.preparation.member import Member, require_plausible, require_text
from dmd2.data.preparation.passed_over import PassedOver, pass_over_file
from dmd2.data.preparation.picture import is_image
from dmd2.data.preparation.tar_reader import tar_members
from dmd2.data.preparation.zip_reader import zip_members
from dmd2.io.files import key_of, name_in_errors

TARS = ("tar", "tar.gz", "tgz", "tar.xz", "txz", "tar.zst")
ARCHIVES = tuple(f".{suffix}" for suffix in ("zip", *TARS))


def members(source: Path, passed: PassedOver | None = None) -> Iterator[Member]:
    """The files of a folder or archive, in the order they are stored in.

    passed  Where to count what is no file, as it is met; files that nobody needs are given, too.

    Raises FileNotFoundError without a source; ValueError for an unknown or damaged archive, for a
    member whose name leads out of it, and for tars or an LMDB with other images beside them;
    ImportError for .zst without `zstandard` and for an LMDB without `lmdb`.
    """
    _require(source)
    passed = {} if passed is None else passed
    if source.is_dir():
        # Before plain folders: an LMDB and webdataset's tars lie in folders, too.
        tars = sorted(
            path for path in source.glob("*.tar") if path.is_file() and path.name[0] != "."
        )
        if (source / "data.mdb").is_file():
            _require_alone([source / "data.mdb", source / "lock.mdb"], source, passed)
            return lmdb_members(source)
        if tars:
            _require_alone(tars, source, passed)
            return _webdataset(tars, passed)
        return _folder(source, passed)
    if source.name.endswith(".zip"):
        return zip_members(source)
    if source.name.endswith(ARCHIVES):
        return tar_members(source, passed)
    raise ValueError(
        f"cannot read {source}; a source is a folder, an LMDB, .zip or .{', .'.join(TARS)}"
    )


def identity(source: Path) -> dict[str, Any]:
    """What changes when the source does, as JSON values: its path, and names, sizes and times of
    its files. No file is opened.
    """
    _require(source)
    files = (
        [(str(path.relative_to(source)), path.stat()) for path in files_of(source, {})]
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
    if not (source.is_dir() or source.is_file()):
        raise ValueError(f"{source} is neither a folder nor a regular file; name one of these")


def _require_alone(own: Collection[Path], source: Path, passed: PassedOver) -> None:
    """Raise ValueError where images or archives lie beside those that are read."""
    for path in files_of(source, passed):
        name = path.relative_to(source).as_posix()
        if path not in own:
            if is_image(name) or name.lower().endswith(ARCHIVES):
                raise ValueError(
                    f"{source} holds {next(iter(own)).name} and beside it {name}, and only one of "
                    "them would be read; move either to a folder of its own"
                )
            pass_over_file(passed, name)


def _folder(source: Path, passed: PassedOver) -> Iterator[Member]:
    for path in files_of(source, passed):
        name = path.relative_to(source).as_posix()
        require_text(name, source)
        yield Member(name, partial(_read_file, path, name, source), random_access=True)


def _read_file(path: Path, name: str, source: Path) -> bytes:
    require_plausible(path.stat().st_size, name, source)
    with name_in_errors(path):
        return path.read_bytes()


def _webdataset(tars: Sequence[Path], passed: PassedOver) -> Iterator[Member]:
    """The files of a folder's tars, one tar after the other; each counts as a folder of its own."""
    for tar in tars:
        for member in tar_members(tar, passed):
            yield member._replace(name=f"{tar.stem}/{member.name}")
