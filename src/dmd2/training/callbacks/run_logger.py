"""What a run asks of its loggers beside Lightning's numbers: to begin, to take pictures, to end."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

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

    @abstractmethod
    def end(self) -> None:
        """The run is over: send what is left."""


def run_loggers(loggers: Iterable[Logger]) -> Iterator[RunLogger]:
    """Those among some loggers that know of runs."""
    return (logger for logger in loggers if isinstance(logger, RunLogger))
