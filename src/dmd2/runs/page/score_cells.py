"""The tables of scores on pages: columns with their meaning, and the best of each marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from dmd2.runs.page.glossary import Meaning, meaning_of_score


@dataclass(frozen=True)
class Column:
    """A score, and what it is."""

    name: str
    meaning: Meaning


@dataclass(frozen=True)
class Cell:
    """A score as text, and whether it is the best of its column."""

    text: str
    is_best: bool


@dataclass(frozen=True)
class Row:
    """Scores by name, each as a number to judge by and as text."""

    label: str
    numbers: Mapping[str, float]
    texts: Mapping[str, str]
    competes: bool
    """Whether its scores may be the best: real data are what all others are read against."""
    is_student: bool = False


@dataclass(frozen=True)
class MarkedRow:
    """A row of the table as it is shown."""

    label: str
    cells: list[Cell]
    is_student: bool


@dataclass(frozen=True)
class Table:
    """A table of scores; `columns` are empty where nothing was scored."""

    columns: list[Column]
    rows: list[MarkedRow]


def table(names: Sequence[str], rows: Sequence[Row]) -> Table:
    """Rows under the scores of these names, the best of each column marked."""
    columns = [Column(name, meaning_of_score(name)) for name in names]
    bests = {column.name: best(column, rows) for column in columns}
    return Table(columns, [_marked(row, names, bests) for row in rows])


def best(column: Column, rows: Sequence[Row]) -> float | None:
    """The best score of a column; None where no direction is better."""
    values = [
        row.numbers[column.name] for row in rows if row.competes and column.name in row.numbers
    ]
    known = [value for value in values if isfinite(value)]
    if not known or not column.meaning.better:
        return None
    return min(known) if column.meaning.better == "lower" else max(known)


def _marked(row: Row, names: Sequence[str], bests: Mapping[str, float | None]) -> MarkedRow:
    cells = [
        Cell(
            row.texts.get(name, ""),
            row.competes and bests[name] is not None and row.numbers.get(name) == bests[name],
        )
        for name in names
    ]
    return MarkedRow(row.label, cells, row.is_student)
