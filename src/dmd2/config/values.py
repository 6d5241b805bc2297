"""The types and ranges of a config's keys, in words for the user; classes check their own.

No class is looked up here: a wrong value is said before torch is loaded.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dmd2.config.keys import closest
from dmd2.config.places import is_path_part
from dmd2.config.typed import as_typed


@dataclass(frozen=True)
class Kind:
    """What a key takes: `fits` says whether, `what` names it, `example` can be typed."""

    what: str
    example: str
    fits: Callable[[Any], bool]

    def or_null(self) -> "Kind":
        """The same, and null as well."""
        return Kind(f"{self.what}, or null", self.example, lambda x: x is None or self.fits(x))

    def or_call(self) -> "Kind":
        """The same, and a call that gives it."""
        return Kind(f"{self.what}, or a call", self.example, lambda x: is_node(x) or self.fits(x))


def is_number(value: Any) -> bool:
    """Whether a value is a number; in Python True is one as well, and here it is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def is_whole(value: Any) -> bool:
    """Whether a value is an integer as it was typed: 1000, and not 1e3."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_lora_node(value: Any) -> bool:
    """Whether a value names a LoRA's file, and at most a scale beside it."""
    return (
        isinstance(value, Mapping)
        and {"source"} <= value.keys() <= {"source", "scale"}
        and isinstance(value["source"], str)
        and is_number(value.get("scale", 1.0))
    )


def whole(low: int, example: int) -> Kind:
    """A whole number of at least `low`."""
    what = f"a whole number of at least {low}"
    return Kind(what, str(example), lambda x: is_whole(x) and x >= low)


def list_of(what: str, example: str, fits: Callable[[Any], bool]) -> Kind:
    """A list of which every item fits."""
    return Kind(what, example, lambda x: isinstance(x, list) and all(map(fits, x)))


def is_node(value: Any) -> bool:
    """Whether a value is a call that gives the value."""
    return isinstance(value, Mapping) and isinstance(value.get("_target_"), str)


def one_of(*names: str) -> Kind:
    """One of some words."""
    return Kind(" or ".join(names), names[0], lambda x: x in names)


POSITIVE = Kind("a number above 0", "1.0", lambda x: is_number(x) and x > 0)
TEXT = Kind("text", "NAME", lambda x: isinstance(x, str))
SECTION = Kind("a section with keys of its own", "NAME", lambda x: isinstance(x, Mapping))
CALL = Kind("a call, {_target_: NAME, ...}", "{_target_:NAME}", is_node)
SHARE = Kind("a number between 0 and 1", "0.5", lambda x: is_number(x) and 0 <= x <= 1)
SWITCH = Kind("true or false", "true", lambda x: isinstance(x, bool))
EVERY = whole(1, 500)
DECAY = Kind("", "", lambda x: is_number(x) and 0 < x < 1)
AT_LEAST_0 = Kind("a number of at least 0", "0.01", lambda x: is_number(x) and x >= 0)
BETAS = Kind(
    "a list of two numbers, each at least 0 and below 1",
    "[0.9,0.999]",
    lambda x: isinstance(x, list) and len(x) == 2 and all(is_number(b) and 0 <= b < 1 for b in x),
)
OPTIMIZER = {
    "lr": Kind(
        "a learning rate, a number of at least 0",
        "0.001",
        lambda x: (AT_LEAST_0.fits(x) and x < math.inf) or is_node(x),
    ),
    "weight_decay": AT_LEAST_0,
    "eps": Kind("a number of at least 0", "1e-8", AT_LEAST_0.fits),
    "betas": BETAS,
    "fused": SWITCH,
}

# Sections stand before their keys.
VALUES: dict[str, Kind] = {
    **{
        name: SECTION
        for name in (
            *("data", "teacher", "loss", "lora", "sampler", "optimizer", "metric"),
            *("callbacks", "logger", "trainer", "memory", "paths", "checkpoint"),
        )
    },
    **dict.fromkeys(("loss.generator", "loss.critic"), SECTION),
    "pairs": SECTION.or_null(),
    "name": Kind("text of printable characters without a slash", "NAME", is_path_part),
    "seed": whole(0, 0),
    "max_iterations": whole(1, 2000),
    "critic_updates": whole(1, 5),
    "critic_head_start": whole(0, 100),
    "global_batch": whole(1, 64).or_null(),
    "accumulate": whole(1, 1),
    "max_grad_norm": POSITIVE,
    "max_skipped_updates": whole(0, 0),
    "ema": Kind(
        "a list of decays between 0 and 1, each once",
        "[0.999]",
        lambda x: isinstance(x, list) and all(map(DECAY.fits, x)) and len({*x}) == len(x),
    ),
    "log_every": whole(1, 50),
    "tf32": SWITCH,
    "discriminator_features": one_of("critic", "teacher"),
    "critic_step_layer": TEXT.or_call().or_null(),
    "sampler.times": list_of("a list of times from 1 towards 0", "[1.0,0.5]", is_number).or_call(),
    **dict.fromkeys(("weights", "critic_weights", "teacher.weights"), TEXT.or_null()),
    "resume": Kind("auto, a file, or null", "auto", lambda x: x is None or isinstance(x, str)),
    "resume_allow": list_of("a list of keys", "[seed]", TEXT.fits),
    "checkpoint.every": whole(1, 1000),
    "checkpoint.keep": whole(1, 2),
    "data.num_workers": whole(0, 4),
    "data.seed": whole(0, 0),
    **{f"callbacks.{name}.every": EVERY for name in ("evaluation", "samples", "report")},
    "callbacks.samples.num_samples": whole(1, 100),
    "memory.decoded_at_once": whole(1, 4),
    "memory.decoded_tile": whole(1, 512).or_null(),
    "trainer.strategy.timeout_minutes": whole(1, 60),
    **dict.fromkeys(("paths.runs", "paths.cache", "paths.run"), TEXT),
    "pairs.num_pairs": whole(1, 2000),
    "pairs.at_once": whole(1, 500),
    "pairs.global_batch": whole(1, 64).or_null(),
    **dict.fromkeys(("teacher.denoiser", "teacher.conditioner", "teacher.weighting"), CALL),
    **dict.fromkeys(("optimizer.generator", "optimizer.critic", "optimizer.lr_factor"), CALL),
    **dict.fromkeys(("teacher.head", "teacher.autoencoder"), CALL.or_null()),
    **dict.fromkeys(("lora.generator", "lora.critic"), CALL.or_null()),
    **dict.fromkeys(("optimizer.critic_lr_factor", "teacher.pretrain.module"), CALL.or_null()),
    "teacher.guidance": Kind("a number", "1.0", is_number).or_call(),
    "teacher.sigma_data": POSITIVE,
    "teacher.distilled": one_of("refuse", "allow"),
    "teacher.configs": TEXT.or_null(),
    "teacher.loras": list_of(
        "a list of LoRA files with scales", "[{source:FILE,scale:1.0}]", is_lora_node
    ),
    **dict.fromkeys(("teacher.pretrain", "teacher.pretrain.data"), SECTION.or_null()),
    "teacher.pretrain.max_iterations": whole(1, 1300),
    "optimizer.lr_factor.max_iterations": whole(1, 2000),
    "optimizer.lr_factor.warmup": whole(0, 100),
    "optimizer.lr_factor.decay_from": SHARE,
    **{
        f"{section}.{key}": kind
        for section in (
            "optimizer.generator",
            "optimizer.critic",
            "teacher.pretrain.module.optimizer",
        )
        for key, kind in OPTIMIZER.items()
    },
}
"""Keys of an experiment's config."""
NEEDED = {path: kind for path, kind in VALUES.items() if kind in (SECTION, CALL)}
"""Those that have keys of their own."""


def check_values(config: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError for the first key of a config that is not of its kind.

    A key of the top level must be there; one of a section that lacks it is the section's business.
    """
    for path, kind in kinds.items():
        node: Any = config
        *sections, key = path.split(".")
        for section in sections:
            node = node.get(section) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and key in node and not kind.fits(node[key]):
            raise ValueError(misfit(path, node[key], kind.what, kind.example))


def check_present(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a key of the top level, or a section, that was taken out, e.g. by
    data=null.
    """
    for path, kind in VALUES.items():
        section, _, key = path.rpartition(".")
        if (not section or path in NEEDED) and key not in (config[section] if section else config):
            raise ValueError(f"there is no {path}, and it is needed; type {path}={kind.example}")


def misfit(path: str, value: Any, what: str, example: str) -> str:
    """The message for a value that a key does not take: what was got, and what to type."""
    got = repr(value) if isinstance(value, str) else as_typed(value)
    said = f"{path} must be {what}, got {got}"
    if isinstance(value, float) and value.is_integer() and "whole" in what:
        example = f"{value:.0f}"  # 1e3 is a float to YAML, and its user means 1000
    elif is_number(value) and what.startswith("text"):
        example = f"\"'{value}'\""  # quotes for the shell and for Hydra
    elif isinstance(value, str) and (close := closest(value, what.split(" or "))):
        return f"{said}; did you mean {path}={close}?"
    return f"{said}; type {'' if 'NAME' not in example else 'e.g. '}{path}={example}"


def check_whole(name: str, given: Any, least: int) -> None:
    """Raise ValueError where an argument is no whole number of at least `least`."""
    if not is_whole(given) or given < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {given!r}")
