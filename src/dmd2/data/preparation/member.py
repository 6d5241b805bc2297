"""Member: one file of an archive or folder, with what all readers of archives share: names that
lead outside are refused, and damaged bytes name their archive.
"""

import errno
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

MAX_BYTES = 512 * 2**20  # Of one file; the largest image that PIL decodes has as many, unpacked.
DAMAGE = (
    # What tarfile, zipfile and the decompressors raise for truncated or altered bytes,
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, lzma.LZMAError, zlib.error),
    # and for what they do not expect: lengths, methods, names and nesting of no sense.
    *(struct.error, OverflowError, NotImplementedError, RuntimeError, LookupError, UnicodeError),
)


class Member(NamedTuple):
    """One file of a source.

    name           Its name inside, with forward slashes.
    read           Gives its bytes; works until the next member is asked for.
    random_access  Whether `read` works at any time, and in any thread.
    """

    name: str
    read: Callable[[], bytes]
    random_access: bool = False


def safe_name(name: str, source: Path) -> str:
    """The name with forward slashes; raises ValueError where it leads out of the archive."""
    require_text(name, source)
    path = PureWindowsPath(name)  # knows both slashes and drive letters
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{source} holds the unsafe name {name!r}; pack it again with relative names"
        )
    return path.as_posix()


def require_text(name: str, source: Path) -> None:
    """Raise ValueError for a name that is no Unicode text, which no manifest could hold."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{source} holds the name {name!a}, which is no UTF-8; rename that file"
        ) from error


def require_plausible(num_bytes: int, name: str, source: Path) -> None:
    """Raise ValueError for a file that claims more bytes than any image or list here has."""
    # Before anything is taken: a zip of 4 MB may hold a file of 4 GB.
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"{name} in {source} has {num_bytes:,} bytes, more than the {MAX_BYTES:,} of any "
            "image that is read here; remove it"
        )


@contextmanager
def damage_named(source: Path) -> Iterator[None]:
    """Inside, errors of damaged bytes become a ValueError that names the archive."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error
    except OSError as error:
        # A place before the file's begin, which a zip's list may claim.
        if error.errno != errno.EINVAL:
            error.filename = error.filename or str(source)  # the system names none at reading
            raise
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error
