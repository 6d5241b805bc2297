"""Reads a run's summary.json, which is for people and other programs, too."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from dmd2.io.files import OWN_HASH, read_hashed_json, read_json


def _is_score(value: Any) -> bool:
    # JSON has whole numbers of any length, and floats end at 1e308.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**300)


def _is_amount(value: Any) -> bool:
    return _is_score(value) and isfinite(value) and value >= 0


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_score, value.values()))


def _are_rows(value: Any) -> bool:
    """Whether a value is scores by a row's name."""
    return isinstance(value, dict) and all(map(_are_scores, value.values()))


def _is_health(value: Any) -> bool:
    """Whether a value is what a monitor's summary says."""
    verdicts = value.get("verdicts") if isinstance(value, dict) else None
    return (
        isinstance(verdicts, list)
        and _is_text(value.get("state"))
        and all(isinstance(v, dict) and _is_text(v.get("name")) and "until" in v for v in verdicts)
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


SHAPE: dict[str, Callable[[Any], bool]] = {
    "status": _is_text,
    "experiment": _is_text,
    "primary": _is_text,
    "metrics": _are_scores,
    "students": _are_rows,
    "teacher": _are_rows,
    "floor": _are_scores,
    "baselines": _are_rows,
}
"""What every summary has, and of which shape."""
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "error": _is_text,
    "health": _is_health,
    "best": lambda value: isinstance(value, dict) and isinstance(value.get("iteration", 0), int),
    "weights": _is_text,
    "seed": lambda value: isinstance(value, int),
    "devices": lambda value: isinstance(value, int) and value > 0,
    "planned_memory_bytes": _are_scores,
    "training_seconds": _is_amount,
    "peak_memory_bytes": _is_amount,
    "by_class": _are_rows,
    "class_names": _are_texts,
}
"""What a summary may have, or have as null: an older version, or a run without scores, has none."""


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
    for key, fits in SHAPE.items():
        if key not in content:
            raise ValueError(f"{path} is incomplete: it has no {key}")
        if not fits(content[key]):
            raise ValueError(f"{path} is damaged: its {key} is {content[key]!r:.60}")
    for key, fits in OPTIONAL.items():
        if content.get(key) is not None and not fits(content[key]):
            raise ValueError(f"{path} is damaged: its {key} is {content[key]!r:.60}")
    return content


def flaw(summary: dict[str, Any]) -> str | None:
    """Why a run cannot be compared; None where it can, by its scores or, without any, its log."""
    scores = summary["metrics"]
    if not scores and summary.get("iterations"):
        return None
    if summary["status"] != "completed":
        return ": ".join(filter(None, (summary["status"], summary.get("error"))))
    if not scores:
        return "has no scores"
    if summary["primary"] not in scores:
        return f"has no score {summary['primary']}"
    for name, value in scores.items():
        if not isfinite(value):
            return f"has a {name} of {value}"
    return None
