"""A run's health from its directory: the checks on the rows of metrics.csv, once more."""

from pathlib import Path

from dmd2.evaluation.health import Monitor, replay
from dmd2.evaluation.health.checks import BY_NAME
from dmd2.training.callbacks.csv_logger import read_rows


def monitor_of(folder: Path) -> Monitor:
    """What the checks say of a run; raises FileNotFoundError where it has logged nothing."""
    rows = read_rows(folder / "metrics.csv")
    if not rows:
        raise FileNotFoundError(f"there is no metrics.csv with rows in {folder}; type run=DIR")
    # What the run did not ask is not asked here; one with health=none did not ask anything.
    asked = {key.removeprefix("health/") for key in rows[-1] if key.startswith("health/")}
    ignored = BY_NAME.keys() - asked if asked else ()
    known = ({key: float(value) for key, value in row.items() if value} for row in rows)
    return replay(known, ignored)


def health_of(folder: Path) -> list[str]:
    """Lines: the state at the last row, then every verdict in the order in which they came up."""
    monitor = monitor_of(folder)
    state = "unhealthy" if monitor.standing else "healthy"
    return [f"{folder} is {state}", *(f"  {verdict}" for verdict in monitor.verdicts)]
