"""Reads a run's config.yaml as data: bounded, and without what this program never writes in it."""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmd2.config.keys import node_at
from dmd2.io.shown import in_one_line
from dmd2.io.small_files import read_small_text

MAX_CONFIG_BYTES = 2**20
MAX_DEPTH = 64
SECTIONS = {"data", "pairs", "teacher", "trainer"}
"""Some of what the config of any run has."""


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.yaml as plain containers; references stay text.

    Raises OSError where there is none, ValueError that names one that is damaged.
    """
    text = read_small_text(path, MAX_CONFIG_BYTES)
    try:
        _refuse_bombs(text)
        loaded = OmegaConf.create(text)
        if not isinstance(loaded, DictConfig) or not loaded.keys() >= SECTIONS:
            raise ValueError(f"it lacks one of {', '.join(sorted(SECTIONS))}")
        return OmegaConf.to_container(loaded)  # type: ignore[return-value]
    except (ValueError, yaml.YAMLError, RecursionError, OmegaConfBaseException) as error:
        words = in_one_line(error)
        raise ValueError(f"{path} is damaged, it is no config of a run: {words:.300}") from error


def without_sections(config: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """A config without some sections; of callbacks stays the one that trains, alignment."""
    kept = {key: node for key, node in config.items() if key not in names}
    if (alignment := (config.get("callbacks") or {}).get("alignment")) is not None:
        kept["callbacks"] = {"alignment": alignment}
    return kept


def check_has(path: Path, config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise ValueError that names the file where its config lacks one of some dotted keys."""
    for name in keys:
        section, _, key = name.rpartition(".")
        if key not in (node_at(config, section) or {}):
            raise ValueError(f"{path} is damaged: it lacks {name}")


def _refuse_bombs(text: str) -> None:
    """Raise ValueError for aliases, which may stand for each other without end, and for depth."""
    depth = 0
    # Events come one by one: nothing is built of them, and aliases are not followed.
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has the alias *{event.anchor}; write out what it stands for")
        if isinstance(event, yaml.ScalarEvent) and not depth:
            raise ValueError(f"it is one value, {event.value!r:.40}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
