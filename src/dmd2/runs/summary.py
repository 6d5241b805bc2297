"""Reads a run's summary.json, which is for people and other programs, too."""

from math import isfinite
from pathlib import Path
from typing import Any

from dmd2.io.files import OWN_HASH, read_hashed_json, read_json

KINDS: dict[str, type] = {
    "status": str,
    "experiment": str,
    "primary": str,
    "metrics": dict,
    "students": dict,
    "teacher": dict,
    "floor": dict,
    "baselines": dict,
}
"""What every summary has, and of which kind."""


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a summary.json.

    One that a person has edited is read where its hash was taken out. Raises ValueError that names
    one that is damaged or incomplete.
    """
    content: dict[str, Any] = read_json(path)
    if isinstance(content, dict) and OWN_HASH in content:
        try:
            content = read_hashed_json(path)
        except ValueError as error:
            raise ValueError(f"{error}; if you edited it, take {OWN_HASH} out") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged, it is no summary")
    for key, kind in KINDS.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path} is incomplete: it has no {key}")
    return content


def flaw(summary: dict[str, Any]) -> str | None:
    """Why the scores of a run's summary cannot be compared; None where they can."""
    scores = summary["metrics"]
    if summary["status"] != "completed":
        return str(summary["status"])
    if not scores:
        return "has no scores"
    if summary["primary"] not in scores:
        return f"has no score {summary['primary']}"
    for name, value in scores.items():
        if not isinstance(value, int | float) or not isfinite(value):
            return f"has a {name} of {value}"
    return None
