"""Rules about logged numbers: pure functions of a run's rows, that say what they look at.

A row is what was logged at one iteration, by name. A rule says True (something is wrong), False, or
None where too little was logged to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import ClassVar, Protocol

Row = Mapping[str, float]
Rows = Sequence[Row]


class Rule(Protocol):
    """A question to the rows; `str` of it is a sentence for the documentation."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the numbers that it reads."""
        ...

    def __call__(self, rows: Rows) -> bool | None:
        """Whether something is wrong now, at the last of the rows; None: it cannot be said."""
        ...


def latest(rows: Rows, key: str, num: int) -> list[float]:
    """The last `num` finite values of a number, oldest first; fewer where there are fewer."""
    found: list[float] = []
    for row in reversed(rows):
        if len(found) == num:
            break
        if isfinite(value := row.get(key, float("nan"))):
            found.insert(0, value)
    return found


@dataclass(frozen=True)
class OfOne:
    """Base: a rule about one number."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The one number."""
        return (self.key,)


@dataclass(frozen=True)
class Median(OfOne):
    """Base: the median of a number's last `over` values against a threshold."""

    threshold: float
    over: int = 5

    def __call__(self, rows: Rows) -> bool | None:
        """None until there are `over` values."""
        values = latest(rows, self.key, self.over)
        return self.is_beyond(median(values)) if len(values) == self.over else None

    def is_beyond(self, value: float) -> bool:
        """Whether a median lies on the wrong side of the threshold."""
        raise NotImplementedError

    def __str__(self) -> str:
        of = f", median of {self.over}" if self.over > 1 else ""
        return f"`{self.key}` {type(self).__name__.lower()} {self.threshold:g}{of}"


class Above(Median):
    """The median of a number's last `over` values is above a threshold."""

    def is_beyond(self, value: float) -> bool:
        """Whether it is above."""
        return value > self.threshold


class Below(Median):
    """The median of a number's last `over` values is below a threshold."""

    def is_beyond(self, value: float) -> bool:
        """Whether it is below."""
        return value < self.threshold


@dataclass(frozen=True)
class Rose(OfOne):
    """A count rose within its last `over` values."""

    over: int = 5

    def __call__(self, rows: Rows) -> bool | None:
        """None until there is a value; a count begins at 0."""
        values = latest(rows, self.key, self.over + 1)
        before = values[0] if len(values) > self.over else 0.0
        return values[-1] > before if values else None

    def __str__(self) -> str:
        return f"`{self.key}` rose within {self.over} reports"


@dataclass(frozen=True)
class Fell(OfOne):
    """The last `over` values are all below a share of the largest value that there was."""

    share: float
    over: int = 2

    def __call__(self, rows: Rows) -> bool | None:
        """None until there are `over` values and one before them."""
        values = latest(rows, self.key, len(rows))
        if len(values) <= self.over:
            return None
        return max(values[-self.over :]) < self.share * max(values)

    def __str__(self) -> str:
        return f"`{self.key}` fell below {self.share:g} of its highest, {self.over} in a row"


@dataclass(frozen=True)
class Absent(OfOne):
    """A number was not logged, or is 0."""

    def __call__(self, rows: Rows) -> bool:
        """Whether every row lacks it, or has 0."""
        return not any(row.get(self.key) for row in rows)

    def __str__(self) -> str:
        return f"no `{self.key}`"


@dataclass(frozen=True)
class OfSeveral:
    """Base: a rule about what some rules say, of which one answer `settles` it."""

    settles: ClassVar[bool]
    word: ClassVar[str]  # between them

    rules: tuple[Rule, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The numbers of all of them."""
        return tuple(key for rule in self.rules for key in rule.keys)

    def __call__(self, rows: Rows) -> bool | None:
        """What settles it where one rule says so, else None where one cannot say."""
        answers = [rule(rows) for rule in self.rules]
        if self.settles in answers:
            return self.settles
        return None if None in answers else not self.settles

    def __str__(self) -> str:
        return self.word.join(map(str, self.rules))


class Either(OfSeveral):
    """One of some rules holds."""

    settles, word = True, "; or "


class All(OfSeveral):
    """All of some rules hold."""

    settles, word = False, " and "
