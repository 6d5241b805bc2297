"""A run's health: what its checks are told, and the checks on the rows of metrics.csv once more."""

from pathlib import Path

from dmd2.diffusion.guidance import Guidance
from dmd2.evaluation.health import Monitor, replay
from dmd2.evaluation.health.checks import BY_NAME
from dmd2.nets.text.prompts import Prompts
from dmd2.runs.teacher import Teacher
from dmd2.training.callbacks.csv_logger import read_numbers


def text_guidance(teacher: Teacher) -> float | None:
    """The guidance scale of a text teacher, or the one that its network reads; None of others."""
    if not isinstance(teacher.conditioner, Prompts):
        return None
    if teacher.denoiser.embedded_guidance is not None:
        return teacher.denoiser.embedded_guidance
    guidance = teacher.guidance
    return guidance.scale if isinstance(guidance, Guidance) else guidance


def monitor_of(folder: Path) -> Monitor:
    """What the checks say of a run; raises FileNotFoundError where it has logged nothing."""
    rows = read_numbers(folder / "metrics.csv")
    if not rows:
        raise FileNotFoundError(f"there is no metrics.csv with rows in {folder}; type run=DIR")
    # What the run did not ask is not asked here; one with health=none did not ask anything.
    asked = {key.removeprefix("health/") for key in rows[-1] if key.startswith("health/")}
    ignored = BY_NAME.keys() - asked if asked else ()
    return replay(rows, ignored)


def health_of(folder: Path) -> list[str]:
    """Lines: the state at the last row, then every verdict in the order in which they came up."""
    monitor = monitor_of(folder)
    state = "unhealthy" if monitor.standing else "healthy"
    return [f"{folder} is {state}", *(f"  {verdict}" for verdict in monitor.verdicts)]
