"""The tables of docs/metrics.md: every score and every logged number, with its healthy range."""

import csv
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RANGES = ROOT / "experiments" / "health" / "ranges.csv"


def scores() -> str:
    """Markdown: a row a score."""
    # Imported here: the tests of links and other pages need not load what runs load.
    from dmd2.runs.page.glossary import SCORES  # noqa: PLC0415

    lines = ["| score | better | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | {one.better} | {one.text} |" for name, one in SCORES.items()]
    return "\n".join(lines)


def logged() -> str:
    """Markdown: a row a number that is logged, with what the progress bar calls it."""
    measured, labels = ranges(), bar_labels()
    experiments = sorted({name for found in measured.values() for name in found})
    lines = [
        f"| key | in the bar | what it is | {' | '.join(experiments)} |",
        "|---" * (3 + len(experiments)) + "|",
    ]
    for key, text in rows().items():
        cells = [measured.get(key, {}).get(name, "") for name in experiments]
        label = labels.get(key.replace("*", "generator", 1), "")
        lines.append(f"| `{key}` | {label} | {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows() -> dict[str, str]:
    """What the measured runs log, and as patterns what others log beside that; its meaning."""
    from dmd2.runs.page.glossary import LOGGED, meaning_of_logged  # noqa: PLC0415

    found = {key: meaning_of_logged(key).text for key in ranges()}
    used = {next((p for p in LOGGED if re.fullmatch(p, key)), None) for key in found}
    # For people: "*/loss_*" of "\\w+/loss_\\w+".
    others = {re.sub(r"\\w[+*]", "*", p): text for p, text in LOGGED.items() if p not in used}
    return found | others


def ranges() -> dict[str, dict[str, str]]:
    """Key -> experiment -> "low to high"."""
    found: dict[str, dict[str, str]] = {}
    with RANGES.open(newline="") as file:
        for row in csv.DictReader(file):
            text = " to ".join(dict.fromkeys((row["low"], row["high"])))
            found.setdefault(row["key"], {})[row["experiment"]] = text
    return found


def bar_labels() -> dict[str, str]:
    """The short names that the progress bar shows, by the key's row."""
    from dmd2.runs.page.curves import place_of  # noqa: PLC0415

    progress = yaml.safe_load((ROOT / "conf/callbacks/default.yaml").read_text())["progress"]
    return {place_of(key)[0]: label for key, label in progress["shown"].items()}
