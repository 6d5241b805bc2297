"""Interpolations of our YAML beyond plain names of keys: `${named_after:...}`, `${images:...}`."""

import re
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf


def named_after(prefix: str, key: str, *, _root_: DictConfig) -> str:
    """The name of a run: the prefix, and the last part of the path or hub name at `key`.

    The prefix alone where the key has no value yet: what lacks is said where configs are checked.
    """
    source = OmegaConf.select(_root_, key, throw_on_missing=False)
    # A name is a folder's, and stands in commands.
    own = re.sub(r"[^\w.-]+", "_", Path(str(source)).resolve().name) if source else ""
    return f"{prefix}_{own}" if own else prefix


def images(fact: str, source: str, resolution: int | None = None) -> Any:
    """A fact of a folder's images (`dmd2.data.image_folder.facts_of`)."""
    # Looked up by name: only where it is asked for is torch loaded.
    return get_object("dmd2.data.image_folder.facts_of")(source, resolution)[fact]


def register() -> None:
    """Make them known to OmegaConf; a second time it does nothing."""
    for resolver in (named_after, images):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
