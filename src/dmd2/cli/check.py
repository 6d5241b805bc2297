"""Say what `dmd2 train` would do, or all that it lacks, by `dmd2 train --check`."""

from dmd2.config.check import Config
from dmd2.runs.presence import check_run


def work(config: Config) -> None:
    """Look at what is there, in one process, and print one line; nothing is written."""
    print(check_run(config))
