"""Check a composed Hydra config before anything is built; name a misspelt or unread key."""

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from dmd2.config.batch_size import share_batch
from dmd2.config.calls import check_calls, parameters_of
from dmd2.config.folder import config_folder
from dmd2.config.keys import (
    SECTIONS,
    VERBS_OF_EXPERIMENTS,
    check_sections,
    closest,
    new_name,
    renamed_hint,
    unknown_key,
)
from dmd2.config.options import OPTIONS
from dmd2.config.places import PLACES, check_places
from dmd2.config.resolvers import register
from dmd2.config.types import is_reference
from dmd2.config.values import (
    AT_LEAST_0,
    CALL,
    NEEDED,
    VALUES,
    check_present,
    check_values,
    is_node,
)
from dmd2.config.words import did_you_mean, skeleton, translated

Config = dict[str, Any]
MOST_AT_ONCE = 2**24
"""Samples of a batch on a device, at most: no device has room for more."""
register()  # here, since nothing is composed without this module


def complete(composed: DictConfig) -> None:
    """Raise ValueError that names the keys which must be given and were not, or an empty path."""
    # Not resolved: an interpolation of a missing key would be reported in its place.
    given = OmegaConf.to_container(composed)
    check_places(given)
    if missing := missing_keys(given):
        typed = [
            f"{key}={'PATH' if key.rpartition('.')[2] in PLACES else 'VALUE'}" for key in missing
        ]
        raise ValueError(f"no value for {', '.join(missing)}; type {' '.join(typed)}")


def missing_keys(node: Any, path: str = "") -> list[str]:
    """The dotted paths below `node` that hold "???", OmegaConf's mark of a mandatory value."""
    if not isinstance(node, dict):
        return [path[1:]] if node == "???" else []
    return [key for name in sorted(node) for key in missing_keys(node[name], f"{path}.{name}")]


def check_options(composed: DictConfig, verb: str) -> None:
    """Check the options of a verb that trains nothing.

    Raises ValueError that names an option which must be given and was not, or which nothing reads.
    """
    complete(composed)
    for key in composed:
        if key not in (known := options_of(verb)):
            raise ValueError(unknown_key(str(key), known))
    options: Config = OmegaConf.to_container(composed)  # type: ignore[assignment]
    check_values(options, OPTIONS)
    check_calls("", options)


def resolved(composed: DictConfig) -> Config:
    """A composed config as plain containers, with batch sizes a device, complete and checked.

    Raises ValueError as `complete`, `share_batch` and `check` do.
    """
    complete(composed)
    # Before values that refer to others are resolved, which needs their sections.
    check_values(without_references(OmegaConf.to_container(composed)), NEEDED)
    config: Config = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    check_sections(config)
    drop_idle_sizes(config["lora"])
    check_present(config)
    check_values(config, VALUES)
    share_batch(config)
    check(config)
    return config


def drop_idle_sizes(lora: Config) -> None:
    """Take out what an experiment says of LoRA's sizes where lora=none, or generator, was chosen:
    without `lora=generator` there is no call that they belong to.
    """
    for network, node in lora.items():
        if isinstance(node, dict) and node.keys() <= {"rank", "alpha", "targets"}:
            lora[network] = None


def without_references(node: Any) -> Any:
    """Plain mappings without the values that other keys say, which are checked when resolved."""
    if not isinstance(node, dict):
        return node
    return {key: without_references(x) for key, x in node.items() if not is_reference(x)}


def of_train(overrides: list[str]) -> Config:
    """The config of `dmd2 train OVERRIDES`, where Hydra has been initialised already."""
    return resolved(compose("train", overrides=overrides))


def check(config: Config) -> None:
    """Raise ValueError that names the first key which nothing reads, or a value out of range."""
    # `pairs` is null in train.yaml, so that `+pairs.num_pairs=100` makes a section of that key
    # alone.
    if config["pairs"] is not None and (
        lacking := SECTIONS["pairs"] - {"global_batch", *config["pairs"]}
    ):
        raise ValueError(
            f"no value for pairs.{min(lacking)}; experiment=digits_dmd shows a complete section"
        )
    if (head_start := config["critic_head_start"]) >= config["max_iterations"]:
        raise ValueError(
            f"critic_head_start={head_start} leaves no update of the generator in "
            f"max_iterations={config['max_iterations']}; type a smaller one"
        )
    for name in ("data", "pairs") if config["pairs"] is not None else ("data",):
        # Gradient accumulation cuts a batch into equal shares.
        size, num_shares = config[name]["batch_size"], config["accumulate"]
        if not isinstance(size, int) or not 1 <= size <= MOST_AT_ONCE or size % num_shares:
            raise ValueError(
                f"{name}.batch_size={size} must be a whole number from 1 to {MOST_AT_ONCE:,} that "
                f"accumulate={num_shares} divides"
            )
    # The teacher trains on the run's data with the changes of its own section, which therefore
    # needs no `_target_`.
    merged = {**config["data"], **((config["teacher"]["pretrain"] or {}).get("data") or {})}
    terms = {
        f"loss.{network}.{name}": term
        for network in ("generator", "critic")
        for name, term in config["loss"][network].items()
    }
    # An experiment may set a term's weight where another loss, without the term, was chosen.
    if absent := [key for key, term in terms.items() if term is not None and not is_node(term)]:
        raise ValueError(
            f"{', '.join(absent)}: set, but this loss has no such term; take it out: "
            f"{' '.join(f'~{key}' for key in absent)}, or choose a loss that has it"
        )
    # A negative one would turn the term around.
    check_values(config, {f"{key}.weight": AT_LEAST_0 for key in terms})
    for section in ("callbacks", "logger"):
        check_values(config, {f"{section}.{name}": CALL.or_null() for name in config[section]})
    # From here on classes are looked up, which loads torch: all that needs none stands above.
    if config["teacher"].get("negative") is not None:
        _check_negative(config["teacher"])
    check_calls("", config)
    check_calls("teacher.pretrain.data", merged)


def _check_negative(teacher: Config) -> None:
    """Raise ValueError where the negative prompt is no text, or where nothing would read it."""
    given = f"teacher.negative={teacher['negative']!r}"
    if not isinstance(teacher["negative"], str):
        raise ValueError(f"{given} is no text; type e.g. teacher.negative=blurry")
    if "negative" not in parameters_of(get_object(teacher["conditioner"]["_target_"])):
        raise ValueError(f"{given}, and this teacher reads no text; type teacher.negative=null")
    # A scale of 1 is no guidance: the negative prompt's prediction is never computed.
    if teacher["guidance"] == 1.0:
        raise ValueError(
            f"{given}, and guidance is none; type teacher.guidance=W, or teacher.negative=null"
        )


def unknown_override(text: str, verb: str, overrides: Sequence[str] = ()) -> str | None:
    """Our message for Hydra's error text about a key that is not there; None for any other text.

    overrides  Those of the command.
    """
    found = re.match(r"Could not override '([^']+)'", text)
    if found is None:
        return None
    section, _, key = found[1].rpartition(".")
    trains = verb in VERBS_OF_EXPERIMENTS
    if trains and (new := new_name(found[1])) is not None:
        return renamed_hint(found[1], new)
    sections = SECTIONS if trains else {"": options_of(verb)}
    if key in sections.get(section, ()):  # known, and not to this choice
        return f"this {section} has no key {key}; leave {found[1]} out, or choose another {section}"
    typed = {o.partition("=")[0].lstrip("+"): o.partition("=")[2] for o in overrides}
    value = typed.get(found[1], "")
    # The key that was typed may be of another program: that comes before one that looks alike.
    if trains and not section and (own := translated(found[1], value)) is not None:
        return f"there is no key {found[1]}; in this program's words: type {own}"
    if section in sections and closest(key, sections[section]):
        return unknown_key(found[1], sections[section])
    hint = did_you_mean(found[1], value, skeleton(verb, list(overrides)), verb)
    return f"there is no key {found[1]}; {hint}"


def options_of(verb: str) -> set[str]:
    """The options of a verb that trains nothing: the keys of its YAML, and its config groups."""
    # Read as a file, without Hydra: it is asked for when composing has failed.
    node: Any = OmegaConf.load(config_folder() / f"{verb}.yaml")
    groups = {str(group) for row in node.defaults if isinstance(row, DictConfig) for group in row}
    return set(node) - {"hydra", "defaults"} | {
        group for group in groups if not group.startswith("override ")
    }
