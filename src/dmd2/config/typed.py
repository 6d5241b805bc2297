"""Values of a configuration in YAML's words, as a user types them."""

from typing import Any


def as_typed(value: Any) -> str:
    """A value as one types it, text without quotes.

    >>> as_typed([None, True, "a", 0.5, {"b": []}])
    '[null,true,a,0.5,{b: []}]'
    """
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {as_typed(own)}" for key, own in value.items()) + "}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
