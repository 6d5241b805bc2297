"""Runs a verb: Hydra composes its config, the config is checked, and only then is torch loaded."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dmd2.cli.errors import one_line, user_errors
from dmd2.cli.quotes import parsed
from dmd2.config.check import check_options, resolved
from dmd2.config.folder import config_folder
from dmd2.config.keys import VERBS_OF_EXPERIMENTS
from dmd2.config.values import VALUES, misfit
from dmd2.distributed import environment
from dmd2.runs.job import composition, run_job, typed_words

IN_ONE_PROCESS = ("export", "check", "compare", "benchmark", "import")
"""Verbs that never share their work: of ranks they neither ask nor wait."""


FOLDER_KEYS = ("name", "paths.runs")
"""Keys of which Hydra makes a sweep's directories, before a config is checked."""


def check_folder_names(words: Sequence[str]) -> None:
    """Raise ValueError where one of the `FOLDER_KEYS` is no text: null would be a folder "None"."""
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        found = parsed(word) if key in FOLDER_KEYS else None
        if found is None or found.is_sweep_override() or isinstance(found.value(), str):
            continue
        raise ValueError(misfit(key, found.value(), VALUES[key].what, VALUES[key].example))


def run_verb(verb: str, module: str) -> None:
    """Run `dmd2 VERB` with the arguments in sys.argv; `module` has its function.

    That is `work(config)` of a verb that works on an experiment's config, and `main(options)` of
    one with options of its own, those of conf/VERB.yaml.
    """
    of_experiments = verb in VERBS_OF_EXPERIMENTS
    if of_experiments:
        check_folder_names(sys.argv[1:])

    # Modules of verbs load torch and Lightning, which takes many seconds: not for a misspelt key.
    def task(composed: DictConfig) -> None:
        if verb in IN_ONE_PROCESS or environment.ranks() == (0, 1):
            environment.forget_ranks()
        if of_experiments:
            run_or_sweep_job(composed, module)
        else:
            check_options(composed, verb)
            importlib.import_module(module).main(composed)

    # By this name the Slurm launcher finds `work`.
    task.__module__ = module
    # An absolute path: the folder is in the checkout or, installed from a wheel, in the package.
    frame: Any = hydra.main(
        version_base="1.3",
        config_path=str(config_folder()),
        config_name="train" if of_experiments else verb,
    )
    # Inside Hydra's frame, which would print an exception in words of its own.
    frame(user_errors(task))()


def run_or_sweep_job(composed: DictConfig, module: str) -> None:
    """Call `work` of a verb's module on a composed config.

    A job of a sweep that fails is reported, and the other jobs still run.
    """

    job = HydraConfig.get()

    def work() -> None:
        config = resolved(composed) | {"composed": composition(job)}
        importlib.import_module(module).work(config)

    if job.mode != RunMode.MULTIRUN:
        return work()
    # Hydra has numbered the sweep's jobs; the run's directory is the one with the job's number.
    composed.paths.run = job.runtime.output_dir
    run_job(Path(job.runtime.output_dir), typed_words(job), work, one_line)
