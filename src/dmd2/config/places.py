"""Names of files in a run's config: relative to the directory in which the run was started."""

import os
from pathlib import Path
from typing import Any

PLACES = frozenset(
    {"source", "configs", "weights", "critic_weights", "cache", "folder", "path"}
    | {"published", "runs", "run"}
)
"""Keys, at any depth, whose values are files or folders, or lists of such."""


def found_from_anywhere(config: Any, start: Path) -> Any:
    """The same plain containers with relative names made absolute, where `start` has such a file.

    All others stay as they are: names on a hub, and those of runs that were moved.
    """
    if isinstance(config, dict):
        return {
            key: _found(value, start) if key in PLACES else found_from_anywhere(value, start)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [found_from_anywhere(value, start) for value in config]
    return config


def _found(value: Any, start: Path) -> Any:
    if isinstance(value, list):
        return [_found(inner, start) for inner in value]
    if not isinstance(value, str):
        return found_from_anywhere(value, start)
    return str(start / value) if value and os.path.lexists(start / value) else value
