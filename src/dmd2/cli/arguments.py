"""Arguments that are no KEY=VALUE, or have no effect: what to type instead, before Hydra reads."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dmd2.config.folder import choices, config_folder
from dmd2.config.keys import VERBS_OF_EXPERIMENTS

FLAGS_WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-path", "-cp"),
    *("--config-dir", "-cd", "--info", "-i", "--experimental-rerun"),
}
FLAGS = FLAGS_WITH_VALUE | {"--multirun", "-m", "--run", "-r", "--resolve", "--version"}
"""Hydra's flags that `dmd2` hands on."""
SOURCES = {"compare": "runs=", "prepare": "source=", "import": "source=", "benchmark": "source="}
"""What a path without a key means; a run's directory for the verbs that are not here."""


def check_arguments(verb: str, arguments: Sequence[str]) -> None:
    """Raise ValueError for an argument that is neither a flag of Hydra's nor KEY=VALUE.

    Likewise for `paths.run` in a sweep, each run of which has a directory of its own, and for a
    `launcher` without one. A key that is given twice is said.
    """
    if "=" in arguments[1:-1]:  # key = value
        i = arguments.index("=", 1)
        _refuse_spaces(*arguments[i - 1 : i + 2])
    for argument, after in _words(arguments):
        if argument.startswith("-"):
            _check_flag(argument, after)
        # An empty value before another key is one: `hint= seed=1`.
        elif after[:1] == "=" or (argument[-1:] == "=" and after and not {*"=~-"} & {*after}):
            _refuse_spaces(argument, after)
        elif "=" not in argument and not argument.startswith("~"):
            raise ValueError(f"{argument} is no KEY=VALUE; {_meant(verb, argument)}")
        else:
            _check_choice(verb, argument)
    keys = [word.lstrip("+").partition("=")[0] for word, _ in _words(arguments) if "=" in word]
    for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
        print(f"dmd2: {key} is given more than once; the last one counts", file=sys.stderr)
    is_sweep = {"--multirun", "-m", "hydra.mode=MULTIRUN"} & set(arguments)
    for argument in () if is_sweep else arguments:
        if argument.startswith("launcher=") and argument != "launcher=local":
            raise ValueError(
                f"{argument} has no effect on one run, which begins here and now; of a sweep's "
                f"runs it makes jobs: type dmd2 {verb} -m {argument} seed=0,1"
            )
    for argument in arguments if is_sweep else ():
        if argument.lstrip("+").startswith("paths.run="):
            raise ValueError(
                f"{argument} has no effect in a sweep, each run of which has a directory of its "
                f"own; leave it out, or name the sweep's: hydra.sweep.dir={argument.split('=')[1]}"
            )


def without_check(verb: str, arguments: Sequence[str]) -> list[str]:
    """Arguments without `--check`; raises ValueError for what cannot be checked."""
    if verb != "train":
        raise ValueError(f"--check looks at what dmd2 train would do; type dmd2 {verb} without it")
    if {"--multirun", "-m"} & set(arguments):
        raise ValueError("--check looks at one run; leave the sweep out")
    return [argument for argument in arguments if argument != "--check"]


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Arguments, each with the one behind it; without the values of flags."""
    skip = False
    for argument, after in zip(arguments, [*arguments, ""][1:], strict=True):
        if not skip:
            yield argument, after
        skip = not skip and argument in FLAGS_WITH_VALUE


def _check_flag(argument: str, after: str) -> None:
    name, _, value = argument.partition("=")
    # The short ones may have their value attached, e.g. -cjob.
    if name in FLAGS or not name.startswith("--"):
        return
    key = name.lstrip("-").replace("-", "_")
    value = value or (after if after and "=" not in after else "VALUE")
    raise ValueError(f"there is no flag {name}; keys have no dashes: type {key}={value}")


def _check_choice(verb: str, argument: str) -> None:
    """Raise ValueError where a group gets several choices, or none: it takes one."""
    group, _, value = argument.lstrip("+").partition("=")
    if group[:1] in "~" or not (config_folder() / group).is_dir():
        return
    listed = f"of: dmd2 {verb} --choices {group}"
    if not value:
        raise ValueError(f"{argument} names no choice; type {group}=NAME, {listed}")
    if value.startswith("["):
        raise ValueError(f"{argument} names a list, and {group} is one choice {listed}")


def _refuse_spaces(*parts: str) -> None:
    """Raise ValueError for the parts of `key = value`, `key= value` or `key =value`."""
    raise ValueError(f"{' '.join(parts)} has a space at its equals sign; type {''.join(parts)}")


def _meant(verb: str, argument: str) -> str:
    """What to type for a word without a key: a YAML file, an experiment, a path."""
    path = Path(argument)
    trains = verb in VERBS_OF_EXPERIMENTS
    if path.suffix in (".yaml", ".yml"):
        if path.stem in choices("experiment"):
            return f"type experiment={path.stem}"
        return (
            f"an experiment of your own is DIR/experiment/{path.stem}.yaml: type --config-dir DIR "
            f"experiment={path.stem}"
        )
    if trains and argument in choices("experiment"):
        return f"type experiment={argument}"
    if trains:
        return (
            f"type data=images data.source={argument}"
            if path.exists()
            else f"type e.g. experiment={argument}; dmd2 {verb} --help lists the experiments"
        )
    return f"type {SOURCES.get(verb, 'run=')}{argument}"
