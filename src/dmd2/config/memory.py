"""Keys of a config that say in what memory the same is computed: `memory=low|balanced|fast`."""

from collections.abc import Mapping
from typing import Any

MEMORY_KEYS = frozenset({"gradient_checkpointing", "at_once"})
"""What conf/memory chooses of a teacher's networks; where embeddings lie is a place."""


def without_memory(node: Any) -> Any:
    """A node without `MEMORY_KEYS` in it or below, e.g. for the key of a cache.

    Tiles change images, and so keys; without them a key is that of a time when there were none.
    """
    if not isinstance(node, Mapping):
        return node
    kept = {key: without_memory(value) for key, value in node.items() if key not in MEMORY_KEYS}
    return {key: value for key, value in kept.items() if (key, value) != ("tile", None)}
