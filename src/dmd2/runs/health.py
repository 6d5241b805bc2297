"""A run's health: what its checks are told, and the checks on the rows of metrics.csv once more."""

from pathlib import Path

from dmd2.diffusion.guidance import Guidance
from dmd2.evaluation.health import Monitor, replay, state_in_words
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
    """What the checks say of a run; raises FileNotFoundError where there is none."""
    rows = read_numbers(folder / "metrics.csv")
    if not rows and not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"there is no run in {folder}; type run=DIR")
    # What the run did not ask is not asked here; one with health=none did not ask anything.
    last = rows[-1] if rows else {}
    asked = {key.removeprefix("health/") for key in last if key.startswith("health/")}
    ignored = BY_NAME.keys() - asked if asked else ()
    return replay(rows, ignored)


def health_of(folder: Path) -> list[str]:
    """Lines: the state at the last row, then every verdict in the order in which they came up."""
    monitor = monitor_of(folder)
    state = state_in_words(monitor.state)
    return [f"{folder} is {state}", *(f"  {verdict}" for verdict in monitor.verdicts)]
