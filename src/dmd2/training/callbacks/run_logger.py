"""What a run asks of its loggers beside Lightning's numbers: to begin, to take pictures, to end."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from dmd2.evaluation.health import Verdict
from dmd2.evaluation.scores import References, overall

PICTURE = "samples/grid"
"""The key of the grids of samples, which lie in the run's samples/ by iteration."""


class RunLogger(ABC):
    """A logger that knows of runs. Loggers of Lightning's that do not are given numbers alone."""

    @abstractmethod
    def begin(self, config: Mapping[str, Any], resumed: Path | None, iteration: int) -> None:
        """A run begins, at `iteration`.

        resumed  Directory of the run that this one resumes: what is logged of later iterations
                 there will be made again. None: it begins anew.
        """

    @abstractmethod
    def log_picture(self, key: str, path: Path, iteration: int) -> None:
        """Take a picture that lies at `path`."""

    def log_references(self, references: References) -> None:  # noqa: B027  # most need none
        """Take what scores are read against; summary.json has it in any case."""

    def log_verdict(self, verdict: Verdict) -> None:  # noqa: B027
        """Take what a check has begun to find; `health/NAME` is 1 from now on in any case."""

    @abstractmethod
    def end(self, folder: Path) -> None:
        """The run is over, and all that it leaves lies in `folder`: send what is left."""


def run_loggers(loggers: Iterable[Logger]) -> Iterator[RunLogger]:
    """Those among some loggers that know of runs."""
    return (logger for logger in loggers if isinstance(logger, RunLogger))


def by_name(references: References) -> dict[str, float]:
    """References as numbers by name, e.g. {"reference/teacher/35/rfd": 1.0}."""
    return {
        f"reference/{kind}/{name}/{metric}": value
        for kind, found in references.items()
        for name, scores in found.items()
        for metric, value in overall(scores).items()
    }


def require_package(name: str) -> None:
    """Raise ValueError where the package that logger=`name` needs is missing."""
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"logger={name} needs the package {name}; type: make install EXTRAS=dev,{name} "
            f"(or pip install '.[{name}]' in the checkout)"
        )
