"""The charts of a log: which numbers share one, in which group, and in how many points."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from dmd2.runs.page.glossary import meaning_of_logged, meaning_of_score

GROUPS = {
    "What varied": r"",
    "Quality": r"score/.*",
    "Quality by class": r"",
    "Discriminator": r"(generator|critic)/.*(gan|accuracy|discriminator).*",
    "Generator": r"generator/.*",
    "Critic": r"critic/.*",
    "Health": r"(watch|health|train)/.*",
    "Speed and memory": r"speed/.*",
    "Other": r".*",
}
"""Groups in the order of the page, each with a pattern; a number is in the first that fits."""
MAX_POINTS = 400
"""Points a curve has at most."""

Points = list[tuple[int, float | None]]
"""Iterations and values; None where a value was not finite."""


def group_of(key: str) -> str:
    """The group of a logged number, e.g. "Critic" of "critic/gradient_norm"."""
    return next(group for group, pattern in GROUPS.items() if re.fullmatch(pattern, key))


def place_of(key: str) -> tuple[str, str]:
    """The chart of a logged number, and what its curve is called there.

    >>> place_of("score/raw/fid"), place_of("critic/accuracy_real"), place_of("critic/loss_gan")
    (('fid', 'raw'), ('critic/accuracy', 'real'), ('critic/loss_gan', ''))
    """
    if found := re.fullmatch(r"score/(.+)/([^/]+)", key):
        return found[2], found[1]
    # Noise levels, and real beside fake, are read against each other.
    if found := re.fullmatch(r"(.+/.+)_(t[\d.]+|real|fake)", key):
        return found[1], found[2]
    return key, ""


def number(text: str) -> float | None:
    """A number of a log; None where it is not finite, or was cut off."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def points_of(rows: Iterable[Mapping[str, str | None]]) -> dict[str, Points]:
    """The points of every number in a log, whose rows have their iteration as "step"."""
    found: dict[str, Points] = {}
    for row in rows:
        if (step := row.get("step") or "").isdigit():
            for key, text in row.items():
                if key and key != "step" and isinstance(text, str) and text:
                    found.setdefault(key, []).append((int(step), number(text)))
    return found


def thinned(points: Points, num: int = MAX_POINTS) -> Points:
    """At most `num` (at least 4) of some points: of every stretch the lowest and the highest.

    The first and the last stay. So peaks, which tell of trouble, stay, and a value that was not
    finite is the gap that it was.
    """
    if len(points) <= num:
        return points
    num_stretches = (num - 2) // 2
    first, *inner, last = points
    kept = [first]
    for i in range(num_stretches):
        stretch = inner[i * len(inner) // num_stretches : (i + 1) * len(inner) // num_stretches]
        kept += sorted({_least(stretch, 1), _least(stretch, -1)}, key=lambda point: point[0])
    return [*kept, last]


def _least(points: Points, sign: int) -> tuple[int, float | None]:
    # None is lowest and highest, so that a gap is never left out.
    return min(points, key=lambda point: (point[1] is not None, sign * (point[1] or 0.0)))


def curve(name: str, points: Points, num: int = MAX_POINTS, group: int = 0) -> dict[str, Any]:
    """A curve of a chart, to five digits; those of one `group` share a colour."""
    kept = thinned(points, num)
    y = [None if value is None else float(f"{value:.5g}") for _, value in kept]
    return {"name": name, "group": group, "x": [step for step, _ in kept], "y": y}


def charts(rows: Iterable[Mapping[str, str | None]]) -> list[dict[str, Any]]:
    """The charts of a log, in the order of the groups."""
    found: dict[str, dict[str, Any]] = {}
    for key, points in points_of(rows).items():
        title, name = place_of(key)
        one = found.setdefault(title, chart(title, group_of(key)))
        one["curves"].append(curve(name, points, group=len(one["curves"])))
    return in_order(found.values())


def chart(title: str, group: str) -> dict[str, Any]:
    """A chart without curves; one of other things than iterations has the name of its `axis`."""
    is_score = group in ("Quality", "Quality by class")
    meaning = meaning_of_score(title) if is_score else meaning_of_logged(title)
    explained = {"text": meaning.text, "arrow": meaning.arrow, "better": meaning.better}
    return {"title": title, "group": group, "curves": [], "lines": [], **explained}


def in_order(found: Iterable[dict[str, Any]], primary: str = "") -> list[dict[str, Any]]:
    """Charts by group, the primary score's first."""
    order = list(GROUPS)
    return sorted(found, key=lambda one: (order.index(one["group"]), one["title"] != primary))


def add_references(
    found: Sequence[dict[str, Any]], references: Iterable[tuple[str, Mapping[str, float]]]
) -> None:
    """Give the charts of scores a horizontal line for each reference that has the score."""
    for label, scores in references:
        for one in found:
            value = scores.get(one["title"])
            if one["group"] == "Quality" and value is not None and isfinite(value):
                one["lines"].append({"name": label, "y": value})
