"""The shift of a flow's noise levels where it depends on the number of an image's tokens."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Mu = Callable[[Mapping[str, Any], int], float]
"""The logarithm of a shift, of what a scheduler's file says and of the number of tokens."""


def dynamic_shift(said: Mapping[str, Any], mu: float) -> float:
    """The shift exp(mu), or mu itself where `time_shift_type` of a scheduler's file is linear."""
    return mu if said.get("time_shift_type") == "linear" else math.exp(mu)


def line_mu(said: Mapping[str, Any], num_tokens: int) -> float:
    """Mu as a line in the tokens, through two points of a scheduler's file.

    >>> said = {"base_shift": 0.5, "max_shift": 1.15}
    >>> said |= {"base_image_seq_len": 256, "max_image_seq_len": 4096}
    >>> round(dynamic_shift(said, line_mu(said, num_tokens=4096)), 3)
    3.158
    """
    first, last = said["base_image_seq_len"], said["max_image_seq_len"]
    if last <= first:
        raise ValueError(f"max_image_seq_len={last} is no more than base_image_seq_len={first}")
    slope = (said["max_shift"] - said["base_shift"]) / (last - first)
    return said["base_shift"] + slope * (num_tokens - first)


def flux2_mu(_said: Mapping[str, Any], num_tokens: int, num_steps: int = 50) -> float:
    """FLUX.2's mu, whatever the file says: a line in the number of steps, by default the teacher's,
    through what it is at 10 and at 200 of them; and what it is at 200 for images of more than 4300
    tokens.

    >>> round(flux2_mu({}, num_tokens=4096, num_steps=4), 3)
    2.291
    """
    at_10, at_200 = 8.73809524e-5 * num_tokens + 1.89833333, 0.00016927 * num_tokens + 0.45666666
    if num_tokens > 4300:
        return at_200
    return at_200 + (at_10 - at_200) * (200 - num_steps) / 190
