"""Say again whether a run is healthy, what is or was wrong, and what to try, from its metrics.csv.

usage: dmd2 check run=DIR

  run   The run's directory; the run may still be at work.

The checks are those of this version, on what was logged; docs/health.md has the table of them.
`dmd2 train --check` is something else: what a run would lack, said before it begins.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.runs.health import health_of


def main(options: DictConfig) -> None:
    """Print a line, and one for every verdict."""
    print("\n".join(health_of(Path(options.run))))
