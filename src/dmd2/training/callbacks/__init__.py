"""Lightning callbacks and loggers: each is complete when it is built."""

from dmd2.training.callbacks.checkpoint import Checkpoint
from dmd2.training.callbacks.csv_logger import CSVLogger
from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.callbacks.health import Health
from dmd2.training.callbacks.implicit_alignment import ImplicitAlignment
from dmd2.training.callbacks.interrupt import Interrupt
from dmd2.training.callbacks.progress import Progress
from dmd2.training.callbacks.report import Report
from dmd2.training.callbacks.run_logger import RunLogger
from dmd2.training.callbacks.sample_grid import SampleGrid
from dmd2.training.callbacks.tensorboard_logger import TensorBoardLogger
from dmd2.training.callbacks.throughput import Throughput
from dmd2.training.callbacks.wandb_logger import WandbLogger

__all__ = [
    "CSVLogger",
    "Checkpoint",
    "Evaluation",
    "Health",
    "ImplicitAlignment",
    "Interrupt",
    "Progress",
    "Report",
    "RunLogger",
    "SampleGrid",
    "TensorBoardLogger",
    "Throughput",
    "WandbLogger",
]
