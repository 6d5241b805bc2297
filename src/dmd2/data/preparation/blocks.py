"""How far work on numbered rows is, which any processes share, also one after the other: a file for
each block done.

Who takes a block locks its bytes in the file `taken`, one for each row, and the system frees them
when that process ends, however it does. So ranks need no word to each other, and the block of one
that died is another's.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dmd2.io.files import read_json, write_json


class Progress:
    """Of `num_rows` rows, `at_once` in a block, kept in `folder`.

    `plan` is a hash of what is done: two plans never share a folder, and ValueError is raised where
    it is of another.
    `begin` makes the room for the rows, where nobody has begun: construct it inside
    `dmd2.io.files.locked`. Who sees that
    all is done may `discard` the folder; the others see it by that.
    """

    def __init__(
        self, folder: Path, plan: str, num_rows: int, at_once: int, begin: Callable[[], None]
    ) -> None:
        self.folder, self.num_rows, self.at_once = folder, num_rows, at_once
        if not (folder / "plan.json").exists():
            begin()
            write_json(folder / "plan.json", {"plan": plan})
        elif read_json(folder / "plan.json")["plan"] != plan:
            raise ValueError(
                f"{folder.parent} was begun from other files or with other options; remove it, or "
                "take another place"
            )

    def free(self) -> Iterator[range]:
        """Blocks to do, each this process's until the next is asked for; at the end all are done,
        by whomever.

        It has to be `record`ed in between. Blocks that other processes have taken are waited for.
        """
        with suppress(FileNotFoundError):  # another process saw that all was done, and ended it
            while missing := self._missing():
                for rows in missing:
                    with suppress(BlockingIOError), self._file() as file:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(rows), rows.start)
                        if not self._record(rows).exists():
                            yield rows
                for rows in self._missing():
                    with self._file() as file:
                        fcntl.lockf(file, fcntl.LOCK_EX, len(rows), rows.start)

    def record(self, rows: range, found: Mapping[str, Any]) -> None:
        """Say that a block is done, after its bytes are on the disk, and what was found in it."""
        write_json(self._record(rows), found)

    def found(self) -> list[Any]:
        """What was found in the blocks that are done, in their order."""
        return [read_json(self._record(rows)) for rows in self._done()]

    def is_complete(self) -> bool:
        """Whether all is done; asked inside `dmd2.io.files.locked`, where nobody discards the
        folder meanwhile.
        """
        return not self._missing()

    def num_done(self) -> int:
        """How many rows are done; all of them, where another process has ended it."""
        with suppress(FileNotFoundError):
            return self.num_rows - sum(map(len, self._missing()))
        return self.num_rows

    def _missing(self) -> list[range]:
        """The blocks of what is not done, by whoever may be at work on it."""
        found, start = list[range](), 0
        for done in [*self._done(), range(self.num_rows, self.num_rows)]:
            gap = range(start, done.start)
            found += [gap[i : i + self.at_once] for i in range(0, len(gap), self.at_once)]
            start = max(start, done.stop)
        return found

    def _done(self) -> list[range]:
        names = [path.stem.split("-") for path in self.folder.iterdir() if path.suffix == ".json"]
        return [
            range(int(start), int(stop)) for start, stop in sorted(n for n in names if len(n) == 2)
        ]

    def _record(self, rows: range) -> Path:
        return self.folder / f"{rows.start:012d}-{rows.stop:012d}.json"

    def _file(self) -> IO[bytes]:
        return (self.folder / "taken").open("ab")
