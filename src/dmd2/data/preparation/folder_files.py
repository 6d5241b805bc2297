"""The files of a folder: regular ones only, and each once, whatever links lead to it."""

import os
import stat
from collections import deque
from pathlib import Path

from dmd2.data.preparation.passed_over import PassedOver, pass_over

OTHERS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def files_of(folder: Path, passed: PassedOver) -> list[Path]:
    """All regular files below a folder, in an order that depends on names alone.

    Links are followed, so that a data set may be put together of links to others, after everything
    that lies in the folder itself. What is no file (reading a FIFO would wait for ever), and links
    to what is read already, are counted in `passed`.
    """
    root, files, folders = os.path.realpath(folder), dict[str, str](), set[str]()
    links = deque([str(folder)])
    while links:
        path = links.popleft()
        name, real = os.path.relpath(path, folder), os.path.realpath(path)
        try:
            mode = os.stat(path).st_mode
        except OSError:  # of a link to nothing, or of links in a circle
            pass_over(passed, "link to nothing", name)
            continue
        # A link to a folder around this one may lead to the whole disk.
        around = bool(folders) and f"{root}{os.sep}".startswith(f"{real.rstrip(os.sep)}{os.sep}")
        if real in files or real in folders or around:
            pass_over(passed, "link to what is read already", name)
        elif stat.S_ISDIR(mode):
            links += _enter(path, real, folder, files, folders, passed)
        elif stat.S_ISREG(mode):
            files[real] = path
        else:
            pass_over(passed, OTHERS.get(stat.S_IFMT(mode), "odd file"), name)
    return [Path(path) for path in files.values()]


def _enter(
    top: str,
    top_real: str,
    root: Path,
    files: dict[str, str],
    folders: set[str],
    passed: PassedOver,
) -> list[str]:
    """Add all files below `top` to `files`, by real path, and its folders; returns the links."""
    links, waiting = list[str](), [(top, top_real)]
    while waiting:
        where, real = waiting.pop()
        if real in folders:  # a link led here before
            pass_over(passed, "folder that is read already", os.path.relpath(where, root))
            continue
        folders.add(real)
        try:
            with os.scandir(where) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError:
            pass_over(passed, "folder that may not be read", os.path.relpath(where, root))
            continue
        if not entries:  # perhaps a class that lost its images
            pass_over(passed, "empty folder", os.path.relpath(where, root))
        inner = list[tuple[str, str]]()
        for entry in entries:
            # Without links below `top` this is the real path, and needs no call of the system.
            its_real = os.path.join(real, entry.name)
            if entry.is_symlink():
                links.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                inner.append((entry.path, its_real))
            elif entry.is_file(follow_symlinks=False):
                files.setdefault(its_real, entry.path)
            else:
                mode = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                kind = OTHERS.get(mode, "odd file")
                pass_over(passed, kind, os.path.relpath(entry.path, root))
        waiting += reversed(inner)  # the first is popped first
    return links
