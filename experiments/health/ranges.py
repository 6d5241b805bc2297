"""The range of every logged number in healthy runs: 5th to 95th percentile of the second half.

usage: python experiments/health/ranges.py DIR > experiments/health/ranges.csv

DIR holds run directories. Numbers that share a chart on a run's page (noise levels, real and fake)
are taken together. The site's page of logged numbers shows the file.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from dmd2.runs.page.curves import place_of, points_of
from dmd2.training.callbacks.csv_logger import read_rows


def main(folder: Path) -> None:
    """Print the table."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in sorted(folder.rglob("summary.json")):
        summary = json.loads(path.read_text())
        for key, points in points_of(read_rows(path.parent / "metrics.csv")).items():
            if not key.startswith(("score/", "speed/", "health/")):
                late = [y for x, y in points if 2 * x > summary["iterations"] and y is not None]
                values[summary["experiment"], place_of(key)[0]] += late
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["experiment", "key", "low", "high"])
    for (experiment, key), found in sorted(values.items()):
        if found:
            low, high = np.percentile(found, [5, 95])
            table.writerow([experiment, key, f"{low:.3g}", f"{high:.3g}"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
