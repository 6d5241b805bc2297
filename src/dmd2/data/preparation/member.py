"""Member: one file of an archive or folder, with what all readers of archives share: names that
lead outside are refused, and damaged bytes name their archive.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import NamedTuple


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
    path = PureWindowsPath(name)  # knows both slashes and drive letters
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{source} holds the unsafe name {name!r}; pack it again with relative names"
        )
    return path.as_posix()


@contextmanager
def damage_named(source: Path) -> Iterator[None]:
    """Inside, errors of damaged bytes become a ValueError that names the archive."""
    try:
        yield
    # What tarfile, zipfile and the decompressors raise for truncated or altered bytes.
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{source} is damaged ({error}); fetch it again") from error
