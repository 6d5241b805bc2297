"""A group of runs that differ by their seeds only: its name, scores, costs and health."""

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from dmd2.evaluation.health import state_in_words
from dmd2.runs.differences import ABSENT
from dmd2.runs.memory import GIB
from dmd2.runs.score_table import spread

COSTS = {"seconds": ("training_seconds", 1), "GiB": ("peak_memory_bytes", GIB)}
"""What runs took: the heading, the key of a summary, and its size in the heading's unit.

Seconds are those of iterations, without scores and pictures; memory is the most that was held, of
the GPU or of the process.
"""


@dataclass
class Group:
    """Runs that differ by their seeds only, all scored or none; folders and summaries go together.

    differences  What they differ in from the other groups of their experiment, by dotted key.
    named        Those of these keys that name it; None: all.
    """

    experiment: str
    differences: dict[str, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    named: set[str] | None = None

    @property
    def name(self) -> str:
        """The experiment and the differences, e.g. "digits_dmd2 max_iterations=500"."""
        # What others have and this one lacks is said by the others' names.
        found = [
            key if key.startswith("~") else f"{key}={value}"
            for key, value in self.differences.items()
            if value != ABSENT and (self.named is None or key in self.named)
        ]
        return " ".join([self.title, *found])

    @property
    def title(self) -> str:
        """The experiment, and why there are no scores where there are none."""
        if self.is_scored:
            return self.experiment
        ends = {summary["status"] for summary in self.summaries} - {"completed"}
        return f"{self.experiment} ({', '.join(['not scored', *sorted(ends)])})"

    @property
    def is_scored(self) -> bool:
        """Whether its runs have scores."""
        return bool(self.summaries[0]["metrics"])

    @property
    def primary(self) -> str:
        """The score to judge by; lower is better."""
        return str(self.summaries[0]["primary"])

    def values(self, metric: str) -> list[float]:
        """A score of each run that has it."""
        return [s["metrics"][metric] for s in self.summaries if metric in s["metrics"]]

    def cost(self, name: str) -> str:
        """Mean and spread of one of the `COSTS` of its runs; empty where none says it."""
        key, unit = COSTS[name]
        return spread([found / unit for s in self.summaries if (found := s.get(key))])

    @property
    def health(self) -> str:
        """What was wrong at the end, e.g. "2 of 3: gan_won"; empty if nobody watched.

        Where nothing was, the runs' states: healthy, or too short to judge.
        """
        watched = [found for summary in self.summaries if (found := summary.get("health"))]
        ill = [found["verdicts"] for found in watched if found["state"] == "unhealthy"]
        names = dict.fromkeys(v["name"] for found in ill for v in found if v["until"] is None)
        if ill:
            return f"{len(ill)} of {len(watched)}: {', '.join(names)}"
        return "; ".join(dict.fromkeys(state_in_words(found["state"]) for found in watched))

    def best(self) -> tuple[Path, dict[str, Any]]:
        """Folder and summary of the run with the best primary score; of unscored ones the first."""
        runs = zip(self.folders, self.summaries, strict=True)
        return min(runs, key=lambda run: run[1]["metrics"].get(self.primary, inf))


Groups = list[Group]
"""Sorted by the mean of the primary score, the best first; those without scores are behind."""
