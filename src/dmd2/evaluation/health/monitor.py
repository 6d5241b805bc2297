"""Follows the rows of a run, and says since when which check has found something."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dmd2.evaluation.health.checks import BY_NAME, CHECKS
from dmd2.evaluation.health.rules import Median, Row

KEYS = frozenset(
    key for check in CHECKS for rule in (check.rule, check.lasting) if rule for key in rule.keys
)
"""The numbers that some check reads."""
NUM_ROWS = 200
"""Rows that are remembered: `Fell` finds the highest value in them, the others the last few."""
NUM_REPORTS = Median.over
"""Reports that most rules want before they say anything."""
TOO_SHORT = "too_short"
"""The state in place of "healthy" after fewer."""


def state_in_words(state: str) -> str:
    """What people read of a run's state."""
    if state != TOO_SHORT:
        return state
    return f"too short to judge: {NUM_REPORTS} reports are needed, one every log_every iterations"


@dataclass
class Verdict:
    """What a check found: `since` an iteration, and `until` one; None: it still stands."""

    name: str
    since: int
    until: int | None = None

    def __str__(self) -> str:
        """A line: what is wrong, since when, why, and what to try."""
        check = BY_NAME[self.name]
        when = f"since iteration {self.since}"
        if self.until is not None:
            when = f"from iteration {self.since} to {self.until}"
        return f"{self.name} {when}: {check.reason}; try: {check.remedy}"

    def as_dict(self) -> dict[str, Any]:
        """What summary.json says of it."""
        check = BY_NAME[self.name]
        return asdict(self) | {"reason": check.reason, "remedy": check.remedy}


class Monitor:
    """All checks but the `ignored` ones, by name, on the rows so far.

    Its state is the last rows and the verdicts.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self.checks = [check for check in CHECKS if check.name not in ignored]
        self.rows: list[dict[str, float]] = []
        self.verdicts: list[Verdict] = []
        """In the order in which they came up."""
        self.answers: dict[str, bool] = {}
        """What the checks said at the last row, of those that could say something."""

    @property
    def standing(self) -> list[Verdict]:
        """The verdicts that stand now."""
        return [verdict for verdict in self.verdicts if verdict.until is None]

    @property
    def state(self) -> str:
        """What it comes to now: "unhealthy", "healthy" or `TOO_SHORT`."""
        if self.standing:
            return "unhealthy"
        num_reports = max(sum(key in row for row in self.rows) for key in KEYS)
        return "healthy" if num_reports >= NUM_REPORTS else TOO_SHORT

    def summary(self) -> dict[str, Any]:
        """`health` of summary.json: the state now, and all verdicts that there were."""
        return {"state": self.state, "verdicts": [verdict.as_dict() for verdict in self.verdicts]}

    def add(self, iteration: int, row: Row) -> list[Verdict]:
        """Take the numbers that were logged at an iteration; the verdicts that began or ended."""
        self.rows.append({key: value for key, value in row.items() if key in KEYS})
        del self.rows[:-NUM_ROWS]
        stand = {verdict.name for verdict in self.standing}
        rules = {
            c.name: c.lasting if c.lasting and c.name in stand else c.rule for c in self.checks
        }
        found = {name: rule(self.rows) for name, rule in rules.items()}
        self.answers = {name: answer for name, answer in found.items() if answer is not None}
        ended = [v for v in self.standing if self.answers.get(v.name) is False]
        for verdict in ended:
            verdict.until = iteration
        began = [Verdict(n, iteration) for n, bad in self.answers.items() if bad and n not in stand]
        self.verdicts += began
        return ended + began

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"rows": self.rows, "verdicts": [asdict(verdict) for verdict in self.verdicts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self.rows = list(state["rows"])
        self.verdicts = [Verdict(**verdict) for verdict in state["verdicts"]]


def replay(rows: Iterable[Row], ignored: Collection[str] = ()) -> Monitor:
    """What a monitor says at the end of a whole log, whose rows have their iteration as "step"."""
    monitor = Monitor(ignored)
    for row in rows:
        monitor.add(int(row["step"]), row)
    return monitor
