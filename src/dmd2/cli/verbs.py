"""Decorators for the verbs' functions: Hydra composes the config, errors of users are one line."""

import functools
from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig

from dmd2.cli.errors import user_errors
from dmd2.cli.sweep import run_or_sweep_job
from dmd2.config.check import Config, check_options, config_folder


def verb_of_options(name: str) -> Callable[[Callable[[DictConfig], None]], Any]:
    """Decorate the function of a verb that has options of its own, those of conf/NAME.yaml."""

    def decorate(work: Callable[[DictConfig], None]) -> Any:
        @functools.wraps(work)
        def main(options: DictConfig) -> None:
            check_options(options, name)
            work(options)

        return _composed(name, main)

    return decorate


def verb_of_experiments(work: Callable[[Config], None]) -> Any:
    """Decorate the function of a verb that works on an experiment's config, or on a sweep of them.

    A Slurm job calls the function itself, by its module and the name `work`.
    """

    # `wraps` keeps the name of the verb's module, by which the Slurm launcher finds `work`.
    @functools.wraps(work)
    def main(composed: DictConfig) -> None:
        run_or_sweep_job(composed, work)

    return _composed("train", main)


def _composed(config_name: str, main: Callable[[DictConfig], None]) -> Any:
    # An absolute path: the folder is in the checkout or, installed from a wheel, in the package.
    frame = hydra.main(
        version_base="1.3", config_path=str(config_folder()), config_name=config_name
    )
    # Inside Hydra's frame, which would print an exception in words of its own.
    return frame(user_errors(main))
