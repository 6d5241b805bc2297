"""The known keys of every config section, keys that were renamed, and hints for an unknown key."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

VERBS_OF_EXPERIMENTS = ("train", "pretrain", "pairs", "plan")
"""The verbs whose config is an experiment's; each of the others has a YAML file of its own."""

# The keys that are read of every section that is not a constructor call; of those the signature
# says which there are (`dmd2.config.calls`).
SECTIONS: dict[str, set[str]] = {
    "": {
        "name",
        "seed",
        "max_iterations",
        "critic_updates",
        "critic_head_start",
        "global_batch",
        "accumulate",
        "max_grad_norm",
        "ema",
        "max_skipped_updates",
        "log_every",
        "compile",
        "tf32",
        "discriminator_features",
        "critic_step_layer",
        "weights",
        "critic_weights",
        "resume",
        "resume_allow",
        "checkpoint",
        "pairs",
        "teacher",
        "data",
        "loss",
        "lora",
        "sampler",
        "optimizer",
        "metric",
        "callbacks",
        "health",
        "logger",
        "memory",
        "trainer",
        "paths",
        "launcher",
    },
    "teacher": {
        "sigma_data",
        "weighting",
        "guidance",
        "embedded_guidance",
        "distilled",
        "denoiser",
        "conditioner",
        "autoencoder",
        "head",
        "url",
        "license",
        "negative",
        "source",
        "configs",
        "loras",
        "variant",
        "dtype",
        "weights",
        "pretrain",
    },
    "teacher.pretrain": {"max_iterations", "data", "module"},
    "pairs": {"num_pairs", "global_batch", "batch_size", "dtype", "solver", "at_once"},
    "checkpoint": {"every", "keep"},
    "health": {"every", "num_samples", "stop_on", "ignore", "callback"},
    "lora": {"generator", "critic"},
    "memory": {"gradient_checkpointing", "embeddings", "decoded_at_once", "decoded_tile"},
    "optimizer": {"generator", "critic", "lr_factor", "critic_lr_factor"},
    "paths": {"runs", "cache", "run"},
}

# Keys of older versions of dmd2, and their names now; * stands for any name. A key is renamed in
# place, so both have the same section.
RENAMED = {
    "rung_layer": "critic_step_layer",
    "head_reads": "discriminator_features",
    "max_faults": "max_skipped_updates",
    "teacher.pretrain.module.max_faults": "teacher.pretrain.module.max_skipped_updates",
    "metric.suite.detectors.*.view": "metric.suite.detectors.*.preprocessing",
}


def new_name(path: str) -> str | None:
    """The name that a dotted path of an older version has now; None for any other path."""
    parts = path.split(".")
    for old, new in RENAMED.items():
        pattern = old.split(".")
        begins = zip(pattern, parts, strict=False)
        if len(parts) >= len(pattern) and all(name in ("*", part) for name, part in begins):
            # Its section and what lies below it stay as they are.
            i = len(pattern) - 1
            return ".".join([*parts[:i], new.rpartition(".")[2], *parts[i + 1 :]])
    return None


def is_among(path: str, keys: Iterable[str]) -> bool:
    """Whether a dotted key is one of some keys, or lies below one.

    >>> is_among("loss.generator.gan", ["loss.generator"]), is_among("losses", ["loss"])
    (True, False)
    """
    return f"{path}.".startswith(tuple(f"{key}." for key in keys))


def node_at(config: Mapping[str, Any], path: str) -> Any:
    """The node at a dotted path; None where a section on the way is missing or null."""
    node: Any = config
    for part in filter(None, path.split(".")):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def check_sections(config: Mapping[str, Any]) -> None:
    """Raise ValueError that names the first key of `SECTIONS` which nothing reads."""
    for section, known in SECTIONS.items():
        node = node_at(config, section)
        for key in node if isinstance(node, Mapping) else ():
            if key not in known:
                raise ValueError(unknown_key(f"{section}.{key}".lstrip("."), known))


def check_renamed(config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError that names every key which has another name now.

    config  Read from a run directory, which an older version may have written.
    where   The file that it is from, for the message.
    """
    old = [f"{path} is now {new_name(path)}" for path in _old_keys(config, "")]
    if old:
        raise ValueError(
            f"{where} is of an older version of dmd2: {', '.join(old)}; use the version that "
            "wrote it (the commit is in the run's summary.json), or train again"
        )


def _old_keys(node: Any, path: str) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        below = f"{path}.{key}".lstrip(".")
        if new_name(below) is not None:
            yield below
        else:
            yield from _old_keys(value, below)


def renamed_hint(path: str, new: str) -> str:
    """The message for a key of an older version: its name now, and what to type."""
    # No YAML file sets the arguments of the teacher's training module, and Hydra adds a key only
    # with a "+".
    plus = "+" if new.startswith("teacher.pretrain.module.") else ""
    return f"{path} is now {new}; type {plus}{new}=VALUE"


# What other programs call a key; looked for where the key was typed.
ALIASES = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "wd": "weight_decay",
    "beta": "betas",
    "max_steps": "max_iterations",
    "steps": "num_steps",
    "bs": "batch_size",
    "num_classes": "label_dim",
    "channels": "in_channels",
    "path": "source",
    "root": "source",
    "guidance_scale": "guidance",
}


def closest(key: str, known: Collection[str]) -> str | None:
    """The one of some known names that a misspelt one means; None where none is near."""
    names = {name: name for name in known if name[:1] != "_"}
    names |= {alias: name for alias, name in ALIASES.items() if name in known}
    close = difflib.get_close_matches(key, names, 1)
    return names[close[0]] if close else None


def unknown_key(path: str, known: Collection[str], otherwise: str = "") -> str:
    """The message for a key that nothing reads: its new name, a similar key, or all known keys.

    path       Dotted path of the key.
    known      The keys that its section knows.
    otherwise  What else may be done, where no known key is similar.
    """
    # Looked up in `known` too: `dmd2 sample` never had these keys, under either name.
    if (new := new_name(path)) is not None and new.rpartition(".")[2] in known:
        return renamed_hint(path, new)
    section, _, key = path.rpartition(".")
    close = closest(key, known)
    hint = (
        # With its section: another one may have a key of this name as well.
        f"did you mean {f'{section}.{close}'.lstrip('.')}?"
        if close
        else f"known here: {', '.join(sorted(known))}{otherwise}"
    )
    return f"nothing reads the key {path}; {hint}"
