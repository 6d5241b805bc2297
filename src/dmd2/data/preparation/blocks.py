"""Resumable work queue over row blocks, shared by processes through file locks.

The work is numbered rows 0 to N - 1, done in blocks. The queue is a folder:

    plan.json        hash of what is done, so that other work does not go on here
    START-STOP.json  a block that is done, and its result
    taken            a file that a process locks bytes of: byte i stands for row i

Processes need no messages and no process group, on one machine or many, at once or one after the
other. The operating system frees a lock when its process ends, however it does, so the block of one
that was killed is done by another.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dmd2.distributed.rank_zero import warn
from dmd2.io.files import read_hashed_json, write_hashed_json


class BlockQueue:
    """Blocks of rows that are to do, in progress and done.

    folder    Where the queue is kept.
    plan      Hash of what is done with the rows.
    num_rows  How many rows there are.
    at_once   Rows per block, at most; a later process may take another size.
    create    Makes the room for the results, e.g. arrays of zeros; called where the queue is new.

    Construct it inside `dmd2.io.files.locked`, so that one process alone creates. A process that
    sees that all is done may `discard` the folder; to the others a folder that is gone means done.
    Raises ValueError where the folder is the queue of another plan.
    """

    def __init__(
        self, folder: Path, plan: str, num_rows: int, at_once: int, create: Callable[[], None]
    ) -> None:
        self.folder, self.num_rows, self.at_once = folder, num_rows, at_once
        if not (folder / "plan.json").exists():
            create()
            # Written last: a kill before it makes the next process create everything again.
            write_hashed_json(folder / "plan.json", {"plan": plan})
        elif self._plan() != plan:
            raise ValueError(
                f"{folder.parent} was begun from other files or with other options; remove it, or "
                "take another place"
            )
        else:
            self._forget_damaged()

    def free(self) -> Iterator[range]:
        """Blocks to do, each locked by this process until the next one is asked for.

        Each has to be `record`ed in between. When no block is free, it waits for those of other
        processes, and gives them out again if these died; it ends when all are done.
        """
        with suppress(FileNotFoundError):  # another process saw that all was done, and discarded it
            while missing := self._missing():
                for rows in missing:
                    # A BlockingIOError means that another process has the block.
                    with suppress(BlockingIOError), self._file() as file:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(rows), rows.start)
                        # Asked again under the lock: another may have done it since `_missing`.
                        if not self._record(rows).exists():
                            yield rows
                # What is missing now is locked by others. To wait for a lock is to wait until its
                # process is done with the block, or dead; the loop then looks again.
                for rows in self._missing():
                    with self._file() as file:
                        fcntl.lockf(file, fcntl.LOCK_EX, len(rows), rows.start)

    def record(self, rows: range, result: Mapping[str, Any]) -> None:
        """Mark a block as done, with a result of JSON values; its bytes must be on the disk."""
        # Written atomically: a block is done or it is not.
        write_hashed_json(self._record(rows), result)

    def results(self) -> list[Any]:
        """The results of the blocks that are done, in the order of their rows."""
        return [read_hashed_json(self._record(rows)) for rows in self._done()]

    def is_complete(self) -> bool:
        """Whether all is done; call it inside `locked`, where nobody discards the folder."""
        return not self._missing()

    def num_done(self) -> int:
        """How many rows are done; all of them where another process discarded the folder."""
        with suppress(FileNotFoundError):
            return self.num_rows - sum(map(len, self._missing()))
        return self.num_rows

    def _plan(self) -> str:
        try:
            return read_hashed_json(self.folder / "plan.json")["plan"]
        except ValueError as error:
            raise ValueError(f"{error}; remove {self.folder.parent} and start again") from error

    def _forget_damaged(self) -> None:
        """Remove records of blocks that are damaged: the blocks are then done again."""
        for rows in self._done():
            try:
                read_hashed_json(self._record(rows))
            except ValueError as error:
                warn(f"{error}; its block is done again")
                self._record(rows).unlink()

    def _missing(self) -> list[range]:
        """The blocks that are not done, whether a process is at work on them or not."""
        found, start = list[range](), 0
        # The gaps between the blocks that are done, which may have had another size. The empty
        # range at the end closes the last gap.
        for done in [*self._done(), range(self.num_rows, self.num_rows)]:
            gap = range(start, done.start)
            found += [gap[i : i + self.at_once] for i in range(0, len(gap), self.at_once)]
            start = max(start, done.stop)
        return found

    def _done(self) -> list[range]:
        names = [path.stem.split("-") for path in self.folder.iterdir() if path.suffix == ".json"]
        # Names are padded with zeros, so that they sort as numbers do; plan.json has one part.
        return [
            range(int(start), int(stop)) for start, stop in sorted(n for n in names if len(n) == 2)
        ]

    def _record(self, rows: range) -> Path:
        return self.folder / f"{rows.start:012d}-{rows.stop:012d}.json"

    def _file(self) -> IO[bytes]:
        # To append, which makes the file where it is missing and changes nothing where it is not.
        # Opened anew for each block: closing it frees its locks, and those of every other handle of
        # this process on the file, as POSIX has it.
        return (self.folder / "taken").open("ab")
