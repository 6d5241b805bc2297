"""Whether a training run is healthy, from its logged numbers: rules, checks, verdicts."""

from dmd2.evaluation.health.checks import CHECKS
from dmd2.evaluation.health.monitor import Monitor, Verdict, replay, state_in_words

__all__ = ["CHECKS", "Monitor", "Verdict", "replay", "state_in_words"]
