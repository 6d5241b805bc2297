"""The loggers of a run, as it begins or goes on."""

from lightning.pytorch.loggers import Logger

from dmd2.config.check import Config
from dmd2.runs.build import build
from dmd2.training.callbacks.run_logger import run_loggers
from dmd2.training.checkpoints import Verified


def begin_loggers(config: Config, checkpoint: Verified | None) -> list[Logger]:
    """The loggers; what they have of iterations after the checkpoint is logged again."""
    loggers: list[Logger] = [build(node) for node in config["logger"].values()]
    resumed = None if checkpoint is None else checkpoint.path.parents[1]
    iteration = 0 if checkpoint is None else checkpoint.manifest["iteration"]
    for logger in run_loggers(loggers):
        logger.begin(config, resumed, iteration)
    return loggers
