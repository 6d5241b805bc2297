"""Everything that a run lacks, told at once: one line each."""

from collections.abc import Iterator
from contextlib import contextmanager

from dmd2.io.shown import in_one_line


class Missing(ValueError):
    """Several things are missing; its text has a line for each."""


class Lack:
    """Collects what is missing, so that one try names all of it."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A block whose error is kept for later."""
        try:
            yield
        except (ValueError, OSError, ImportError) as error:
            # Two parts may want the same file.
            if str(error) not in map(str, self._errors):
                self._errors.append(error)

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self._errors)

    def raise_all(self) -> None:
        """Raise the one error there is, `Missing` of several, and nothing for none."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            lines = [in_one_line(error) for error in self._errors]
            raise Missing("\n  ".join([f"{len(lines)} things are missing:", *lines]))
