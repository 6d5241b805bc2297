"""What a run notes while it trains, shared by its callbacks and its summary."""

import time
from collections.abc import Collection
from signal import Signals
from typing import Any

from dmd2.distributed.slurm import AHEAD, Requeue
from dmd2.evaluation.health import Monitor, Verdict
from dmd2.evaluation.scores import References, Scores, best
from dmd2.io.shown import in_one_line, printable


class Record:
    """Scores, time, throughput, and the signal or error that ended a run.

    A plain class: Hydra would turn a dataclass that a callback is given into a dictionary.

    primary  The score to judge by; lower is better.
    """

    def __init__(self, primary: str = "") -> None:
        self.primary = primary
        self.references: References = {}
        """What scores are read against; the teacher's come when it was scored."""
        self.history: list[dict[str, Any]] = []
        """A row each time the generator was scored: "iteration", and "scores" by weights."""
        self.by_class: dict[str, Scores] = {}
        """The newest scores of single classes, by weights."""
        self.earlier_seconds = 0.0
        """Wall time of the attempts that this one resumes."""
        self.started = time.monotonic()
        self.training_seconds = 0.0
        """Time in iterations alone, without scores and pictures, over all attempts."""
        self.num_images = 0
        """Samples that the critic trained on, of all ranks, over all attempts."""
        self.num_iterations = 0
        self.signal: Signals | None = None
        """The signal at which all ranks agreed to end."""
        self.error: str | None = None
        """What ended the run, as rank 0 knows it, where it failed."""
        self.monitor: Monitor | None = None
        """What is or was wrong with the run; None where nobody watches its health."""
        self.lost: Verdict | None = None
        """The verdict that ended the run."""

    def start_clock(self, earlier_seconds: float) -> None:
        """Training begins now, after so much wall time of earlier attempts."""
        self.earlier_seconds, self.started = earlier_seconds, time.monotonic()

    def fail(self, error: Exception) -> None:
        """Note what ended the run, in one line of at most some 300 characters."""
        said = printable(in_one_line(error))
        self.error = f"{type(error).__name__}: {said:.300}".rstrip(": ")

    def wall_seconds(self) -> float:
        """What the run has taken so far, over all attempts."""
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def images_per_second(self) -> float:
        """Mean over the training so far; 0 before the first iteration."""
        return self.num_images / self.training_seconds if self.training_seconds else 0.0

    def best(self, iterations: Collection[int] | None = None) -> dict[str, Any]:
        """The best score so far, among those at `iterations` (None: all)."""
        rows = [r for r in self.history if iterations is None or r["iteration"] in iterations]
        return best(rows, self.primary)

    def raise_if_interrupted(self) -> None:
        """Raise what ends the run: `Requeue` where Slurm asked for it, else KeyboardInterrupt.

        Nothing where no signal came.
        """
        if self.signal is not None:
            raise Requeue if self.signal in AHEAD else KeyboardInterrupt
