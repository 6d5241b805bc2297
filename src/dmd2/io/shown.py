"""Names and texts of others as a terminal may show them."""

import re
from collections.abc import Callable

Explain = Callable[[BaseException], str | None]
"""Says a user's mistake in one line, and None of an error of this program."""


def printable(text: str) -> str:
    r"""The text with control characters, and what is no character, as Python escapes them.

    Names of files may hold any; a terminal would obey them. Line ends stay.

    >>> printable("a\x1b[2Jb\udcff")
    'a\\x1b[2Jb\\udcff'
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def printable_line(text: str) -> str:
    r"""The same of one line: line ends are escaped, too.

    >>> printable_line("a\nb")
    'a\\nb'
    """
    return printable(text).replace("\n", "\\n")


def in_one_line(said: object) -> str:
    """What an error, or anything else, says, with every run of white space as one blank.

    >>> in_one_line(ValueError("no\\n  such file"))
    'no such file'
    """
    text = " ".join(str(said).split())
    # Of an error in a worker torch shows the worker's traceback, which ends with its words.
    return re.sub(r"^Caught (\w+) in DataLoader worker process \d+\. .*\1: ", "", text)
