"""Reader of tars, plain or compressed, in which no damage ends the archive early without a word.

Python's tarfile takes a damaged header in the middle for the end, and checks no hash of gzip's.
"""

import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

from dmd2.data.preparation.member import Member, damage_named, require_plausible, safe_name
from dmd2.data.preparation.passed_over import PassedOver, pass_over

CHUNK = 2**20
# Records that tell of the next member, which tarfile reads at once; real ones have some bytes.
RECORDS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_RECORD = 2**20  # bytes
KINDS = {tarfile.FIFOTYPE: "FIFO", tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device"}


def tar_members(source: Path, passed: PassedOver) -> Iterator[Member]:
    """The files of a tar; the suffix says how it is compressed.

    Raises ValueError where it is damaged or holds links, ImportError for .zst without `zstandard`.
    """
    with damage_named(source), source.open("rb") as file:
        # A compressed one is read front to back, "r|", since xz and zstd cannot seek.
        mode = "r:" if source.name.endswith(".tar") else "r|"
        with (
            closing(_decompressed(file, source)) as stream,
            # mypy wants the mode to be a literal.
            tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header) as archive,  # type: ignore[call-overload]
        ):
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
                    name = safe_name(info.name, source)
                    yield Member(name, partial(_read, archive, info, source))
                elif not info.isdir():
                    pass_over(passed, KINDS.get(info.type, "odd member"), info.name)


class _Header(tarfile.TarInfo):
    """A header that is damaged is an error, and not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in RECORDS and info.size > MAX_RECORD):
            raise tarfile.ReadError(f"a header claims {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "_Header":
        return _whole(super().fromtarfile, tarfile)


def _whole(read: Any, archive: tarfile.TarFile) -> Any:
    """The next header; raises ReadError where there is neither one nor a complete end."""
    try:
        info = read(archive)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        # A block of zeros. What follows at the end is zeros, too; in the middle it was a header.
        while chunk := archive.fileobj.read(CHUNK):
            if chunk.strip(b"\0"):
                raise tarfile.ReadError("there is more behind its end") from None
        raise
    except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
        raise tarfile.ReadError("it breaks off, without blocks of zeros at its end") from None
    except tarfile.HeaderError as error:
        raise tarfile.ReadError(f"a header has a {error}") from None
    if info.size < 0:  # by a record, which would lead back to the same header for ever
        raise tarfile.ReadError(f"a header claims {info.size:,} bytes")
    return info


def _read(archive: tarfile.TarFile, info: tarfile.TarInfo, source: Path) -> bytes:
    # Again, for an error here is raised in the caller, not inside the generator.
    with damage_named(source):
        require_plausible(info.size, info.name, source)
        file = archive.extractfile(info)
        assert file is not None
        return file.read()


def _decompressed(file: IO[bytes], source: Path) -> Any:
    """A stream of the tar itself."""
    if source.name.endswith("gz"):
        # Both check the hashes in the file, which tarfile's own streams do not.
        return gzip.GzipFile(fileobj=file, mode="rb")
    if source.name.endswith("xz"):
        return lzma.LZMAFile(file)
    return _Zstd(file) if source.name.endswith("zst") else file


class _Zstd:
    """A stream of what a .zst holds; its errors are those of tars."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import zstandard  # noqa: PLC0415
        except ImportError as error:
            raise ImportError(
                "reading .tar.zst needs zstandard; type in the checkout: "
                "make install EXTRAS=dev,zstd, or pip install '.[zstd]'"
            ) from error
        self.error = zstandard.ZstdError
        # Across frames: parallel compressors write many, and the reader would stop after the first.
        decompressor = zstandard.ZstdDecompressor()
        self.reader = decompressor.stream_reader(file, read_across_frames=True)

    def read(self, size: int) -> bytes:
        """As of a file."""
        try:
            return self.reader.read(size)
        except self.error as error:
            raise tarfile.ReadError(str(error)) from error

    def close(self) -> None:
        """As of a file."""
        self.reader.close()
