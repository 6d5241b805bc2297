"""Checks a composed config before anything is built: a misspelt or unread key is refused by
name.
"""

import difflib
import inspect
import re
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from dmd2.config.batch_size import share_batch

Config = dict[str, Any]


def config_folder() -> Path:
    """Where the YAML files are: beside the code in an installed wheel, at the top of a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.exists() else Path(__file__).parents[3] / "conf"


def complete(composed: DictConfig) -> None:
    """Raise ValueError that names a key which must be given and was not."""
    if missing := missing_keys(OmegaConf.to_container(composed)):
        raise ValueError(
            f"no value for {', '.join(missing)}; type {' '.join(f'{key}=VALUE' for key in missing)}"
        )


def missing_keys(node: Any, path: str = "") -> list[str]:
    """The keys of nested containers that have no value yet, in order; what only refers to them is
    none.
    """
    if not isinstance(node, dict):
        return [path[1:]] if node == "???" else []
    return [key for name in sorted(node) for key in missing_keys(node[name], f"{path}.{name}")]


def check_options(composed: DictConfig, verb: str) -> None:
    """Check the options of a verb that trains nothing: all that must be given, and none that nobody
    reads.
    """
    complete(composed)
    for key in composed:
        if key not in (known := options_of(verb)):
            raise ValueError(_unknown(str(key), str(key), known))
    for path, node in _calls("", OmegaConf.to_container(composed)):
        _check_call(path, node)


def resolved(composed: DictConfig) -> Config:
    """A composed config as plain containers, complete and checked."""
    complete(composed)
    config: Config = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    share_batch(config)
    check(config)
    return config


def of_train(overrides: list[str]) -> Config:
    """What `dmd2 train` would make of these words, for a command that is at work already."""
    return resolved(compose("train", overrides=overrides))


SECTIONS: dict[str, set[str]] = {
    "": {
        "name",
        "seed",
        "max_iterations",
        "critic_updates",
        "global_batch",
        "accumulate",
        "max_grad_norm",
        "ema",
        "max_skipped_updates",
        "log_every",
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
        "logger",
        "trainer",
        "paths",
        "launcher",
    },
    "teacher": {
        "sigma_data",
        "weighting",
        "guidance",
        "denoiser",
        "conditioner",
        "autoencoder",
        "head",
        "url",
        "license",
        "negative",
        "source",
        "variant",
        "dtype",
        "weights",
        "pretrain",
    },
    "teacher.pretrain": {"max_iterations", "data", "module"},
    "pairs": {"num_pairs", "global_batch", "batch_size", "dtype", "solver", "at_once"},
    "checkpoint": {"every", "keep"},
    "lora": {"generator", "critic"},
    "optimizer": {"generator", "critic", "lr_factor"},
    "paths": {"runs", "cache", "run"},
}
"""The keys that are read of every section that is not a constructor call."""


def check(config: Config) -> None:
    """Raise ValueError that names the first key nobody reads, or the first value that cannot be
    meant.
    """
    for section, known in SECTIONS.items():
        node: Any = config
        for part in filter(None, section.split(".")):
            node = (node or {}).get(part)
        for key in node or {}:
            if key not in known:
                raise ValueError(f"{_unknown(f'{section}.{key}'.lstrip('.'), key, known)}")
    for key in ("max_iterations", "critic_updates", "accumulate", "log_every"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ValueError(f"{key} must be a whole number of at least 1, got {config[key]}")
    if not isinstance(config["ema"], list) or not all(
        isinstance(decay, float) for decay in config["ema"]
    ):
        raise ValueError(f"ema is a list of decays, got {config['ema']}; e.g. ema=[0.999]")
    if not isinstance(config["resume_allow"], list):
        raise ValueError(
            f"resume_allow is a list of keys, got {config['resume_allow']}; e.g. "
            "resume_allow=[seed]"
        )
    if config["discriminator_features"] not in ("critic", "teacher"):
        raise ValueError(
            "discriminator_features must be critic or teacher, got "
            f"{config['discriminator_features']}"
        )
    if config["pairs"] is not None and (
        lacking := SECTIONS["pairs"] - {"global_batch", *config["pairs"]}
    ):
        raise ValueError(
            f"no value for pairs.{min(lacking)}; experiment=digits_dmd shows a complete section"
        )
    for name in ("data", "pairs") if config["pairs"] is not None else ("data",):
        size, num_shares = config[name]["batch_size"], config["accumulate"]
        if not isinstance(size, int) or size < 1 or size % num_shares:
            raise ValueError(
                f"{name}.batch_size={size} must be a whole number of at least 1 that "
                f"accumulate={num_shares} divides"
            )
    if config["teacher"].get("negative") is not None:
        _check_negative(config["teacher"])
    merged = {**config["data"], **((config["teacher"]["pretrain"] or {}).get("data") or {})}
    for network in ("generator", "critic"):
        for name, term in config["loss"][network].items():
            if term is not None and "_target_" not in term:
                raise ValueError(
                    f"loss.{network}.{name} is set, but this loss has no such term; "
                    f"take it out: ~loss.{network}.{name}, or choose a loss that has it"
                )
    for path, node in (*_calls("", config), *_calls("teacher.pretrain.data", merged)):
        _check_call(path, node)


def _check_negative(teacher: Config) -> None:
    """Raise ValueError where the text that guidance is to lead away from is none, or nothing would
    read it.
    """
    said = f"teacher.negative={teacher['negative']!r}"
    if not isinstance(teacher["negative"], str):
        raise ValueError(f"{said} is no text; type e.g. teacher.negative=blurry")
    if "negative" not in _parameters(get_object(teacher["conditioner"]["_target_"])):
        raise ValueError(f"{said}, and this teacher reads no text; type teacher.negative=null")
    if teacher["guidance"] == 1.0:
        raise ValueError(
            f"{said}, and guidance is none; type teacher.guidance=W, or teacher.negative=null"
        )


def unknown_override(text: str, verb: str) -> str | None:
    """Our own line for Hydra's complaint about a key that is not there; None for any other text."""
    found = re.match(r"Could not override '([^']+)'", text)
    if found is None:
        return None
    section, _, key = found[1].rpartition(".")
    sections = SECTIONS if verb in ("train", "pretrain", "pairs") else {"": options_of(verb)}
    if key in sections.get(section, ()):  # known, and not to this choice
        return f"this {section} has no key {key}; leave {found[1]} out, or choose another {section}"
    if section in sections:
        return _unknown(found[1], key, sections[section])
    return (
        f"the config has no key {found[1]}; where its class takes it all the same, type "
        f"+{found[1]}=VALUE"
    )


def options_of(verb: str) -> set[str]:
    """The options of a verb that trains nothing, with the groups that it chooses from."""
    node: Any = OmegaConf.load(config_folder() / f"{verb}.yaml")
    groups = {str(group) for row in node.defaults if isinstance(row, DictConfig) for group in row}
    return set(node) - {"hydra", "defaults"} | {
        group for group in groups if not group.startswith("override ")
    }


def _calls(path: str, node: Any) -> list[tuple[str, Config]]:
    """All nodes with a `_target_`, with their paths."""
    if isinstance(node, list):
        return [call for i, item in enumerate(node) for call in _calls(f"{path}.{i}", item)]
    if not isinstance(node, dict):
        return []
    inner = [
        call for key, item in node.items() for call in _calls(f"{path}.{key}".lstrip("."), item)
    ]
    return [(path, node), *inner] if "_target_" in node else inner


def _check_call(path: str, node: Config) -> None:
    target = get_object(node["_target_"])
    parameters = _parameters(target)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in node:
        if not key.startswith("_") and key not in parameters:
            raise ValueError(
                _unknown(f"{path}.{key}", key, set(parameters), f"; take it out: ~{path}.{key}")
            )


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a call; a class's `**common` stands for those of the class it extends."""
    found: dict[str, inspect.Parameter] = {}
    classes = target.__mro__ if inspect.isclass(target) else ()
    for owner in classes or (target,):
        function = owner.__dict__.get("__init__") if classes else owner
        if function is None:
            continue
        own = dict(inspect.signature(function).parameters)
        open_ended = [name for name, p in own.items() if p.kind is p.VAR_KEYWORD]
        found |= {name: p for name, p in own.items() if name != "self" and name not in open_ended}
        if not open_ended:
            return found
    return found | {"**": inspect.Parameter("extra", inspect.Parameter.VAR_KEYWORD)}


def _unknown(path: str, key: str, known: set[str], otherwise: str = "") -> str:
    close = difflib.get_close_matches(key, known, 1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"known here: {', '.join(sorted(known))}{otherwise}"
    )
    return f"nothing reads the key {path}; {hint}"
