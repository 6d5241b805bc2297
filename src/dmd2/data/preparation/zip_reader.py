"""Reader of zips, in which damage of the list of files is seen, and claims are bounded."""

import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from dmd2.data.preparation.member import Member, damage_named, require_plausible, safe_name
from dmd2.data.preparation.picture import is_image

END_BYTES = 22  # of the record at the end of a zip, without its comment
MAX_RATIO = 200  # how much smaller than its bytes a large file may be; photographs shrink by 1
LARGE = 32 * 2**20  # bytes; below, a picture of one colour may shrink by 1,000


def zip_members(source: Path) -> Iterator[Member]:
    """The files of a zip; raises ValueError where it is damaged, encrypted or lists too few."""
    with damage_named(source), zipfile.ZipFile(source) as archive:
        _require_all(archive, source)
        for info in archive.infolist():
            _require_own_name(archive, info)
            if not info.is_dir():
                name = safe_name(info.filename, source)
                yield Member(name, partial(_read, archive, info, source))


def _require_all(archive: zipfile.ZipFile, source: Path) -> None:
    """Raise BadZipFile where the list has another length than the end of the file says."""
    # zipfile does not compare: a damaged length in an entry of the list skips the next ones.
    with source.open("rb") as file:
        file.seek(-END_BYTES - len(archive.comment), 2)
        end = file.read(END_BYTES)
    if not archive.infolist() and source.stat().st_size > len(end) + len(archive.comment):
        raise zipfile.BadZipFile("its end says that it is empty, and it is not")
    num, listed = int.from_bytes(end[10:12], "little"), len(archive.infolist())
    # The largest number says that another record has it, where there are more.
    if num != 0xFFFF and num != listed & 0xFFFF:
        raise zipfile.BadZipFile(f"its list has {listed} files, its end says {num}")


def _require_own_name(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise BadZipFile where a name in the list is damaged, so that its file would not be read."""
    # zipfile cuts a name at a NUL, and takes one that then ends in a slash for a folder.
    if "\0" in info.orig_filename or (info.is_dir() and info.file_size):
        raise zipfile.BadZipFile(f"its list has the name {info.orig_filename!r} of a file")
    # Opening compares the name with the one before the bytes. Of an image, reading does; what is
    # encrypted or packed in a way that nothing here reads is no matter until it is wanted.
    if not is_image(info.filename) and not info.flag_bits & 1:
        with suppress(NotImplementedError):
            archive.open(info).close()


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> bytes:
    # Again, for an error here is raised in the caller, not inside the generator.
    with damage_named(source):
        if info.flag_bits & 1:
            raise ValueError(
                f"{info.filename} in {source} is encrypted; pack it without a password"
            )
        require_plausible(info.file_size, info.filename, source)
        if info.file_size > max(LARGE, MAX_RATIO * info.compress_size):
            raise ValueError(
                f"{info.filename} in {source} claims {info.file_size:,} bytes packed in "
                f"{info.compress_size:,}, which no image is; remove it"
            )
        return archive.read(info)
