"""The best of the scores so far."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any


def best(history: Sequence[Mapping[str, Any]], primary: str) -> dict[str, Any]:
    """The best score by the primary metric: of which weights, at which iteration, the best of how
    many.
    """
    found = [
        {"iteration": row["iteration"], "weights": name, primary: scores[primary]}
        for row in history
        for name, scores in row["scores"].items()
    ]
    return (
        min(found, key=lambda row: (isnan(row[primary]), row[primary])) | {"of": len(found)}
        if found
        else {}
    )
