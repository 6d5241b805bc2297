"""Names of files in a config: none is empty; a run's are relative to the directory in which it was
started.
"""

import os
from pathlib import Path
from typing import Any

PLACES = frozenset(
    {"source", "configs", "weights", "critic_weights", "cache", "folder", "path"}
    | {"published", "runs", "run", "out"}
)
"""Keys, at any depth, whose values are files or folders, or lists of such."""


def is_path_part(value: Any) -> bool:
    """Whether a value names one file or folder, in none, and can be shown on a terminal."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and not {"/", "\\"} & {*value}
        and value.strip() not in ("", ".", "..")
    )


def check_places(config: Any, path: str = "") -> None:
    """Raise ValueError for a file or folder, at any depth, whose name is empty: to Python it would
    be the current folder.
    """
    for key, value in config.items() if isinstance(config, dict) else ():
        where = f"{path}{key}"
        if key in PLACES and isinstance(value, str) and not value.strip():
            raise ValueError(
                f"{where} is empty; type {where}=PATH, and {where}=. for the current folder"
            )
        check_places(value, f"{where}.")


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
