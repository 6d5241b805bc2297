"""What scores are called, of how many samples they are, and which was the best."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

Scores = dict[str, float]
"""Numbers by metric, e.g. {"fid": 1.3}; with several numbers of samples {"fid_10k": 1.5, ...}.

That of a class alone has its number before it: {"3/accuracy": 0.9}.
"""
References = dict[str, dict[str, Scores]]
"""What scores are read against: "floor", "baselines", "teacher" and "start", each by name."""
MOST = 10**8
"""Samples that a score is made of at most; published ones are of 50,000."""


def overall(scores: Scores) -> Scores:
    """The scores of all samples, which tables and logs have.

    >>> scores = {"accuracy": 0.9, "3/accuracy": 0.8}
    >>> overall(scores), by_class(scores)
    ({'accuracy': 0.9}, {'3/accuracy': 0.8})
    """
    return {name: value for name, value in scores.items() if "/" not in name}


def by_class(scores: Scores) -> Scores:
    """The scores of single classes."""
    return {name: value for name, value in scores.items() if "/" in name}


class SampleCounts:
    """How many samples scores are made of: one number, or rising ones that begin one set.

    Of a lone number a score is called as its metric; of several "fid_10k", "fid_50k". Raises
    ValueError where the numbers do not rise, are below 2 or above `MOST`.
    """

    def __init__(self, num_samples: int | Sequence[int]) -> None:
        is_lone = isinstance(num_samples, int)
        self.numbers = (num_samples,) if isinstance(num_samples, int) else tuple(num_samples)
        self.are_named = not is_lone
        rising = list(self.numbers) == sorted(set(self.numbers))
        if not self.numbers or self.numbers[0] < 2 or self.numbers[-1] > MOST or not rising:
            raise ValueError(
                f"num_samples must be from 2 to {MOST:,}, or rising numbers, got {num_samples}; "
                "e.g. 10000"
            )

    def name(self, metric: str, num_samples: int) -> str:
        """What a metric of so many samples is called."""
        if not self.are_named:
            return metric
        thousands, rest = divmod(num_samples, 1000)
        return f"{metric}_{num_samples}" if rest else f"{metric}_{thousands}k"


def best(history: Sequence[Mapping[str, Any]], primary: str) -> dict[str, Any]:
    """The best score by the primary metric (lower is better): its iteration, weights and value.

    `of` says of how many scores it is the best; empty where there are none.
    """
    found = [
        {"iteration": row["iteration"], "weights": name, primary: scores[primary]}
        for row in history
        for name, scores in row["scores"].items()
    ]
    if not found:
        return {}
    # NaN compares as neither smaller nor larger: it goes last by a key of its own.
    return min(found, key=lambda row: (isnan(row[primary]), row[primary])) | {"of": len(found)}
