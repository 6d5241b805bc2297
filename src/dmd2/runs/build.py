"""Config nodes to objects: the constructor calls that a YAML names, and Lightning's trainer."""

import inspect
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.config.devices import trainer_of
from dmd2.data.base import DataModule
from dmd2.diffusion.guidance import Guidance
from dmd2.io.hub import dtype_of
from dmd2.training.callbacks.checkpoint import Checkpoint
from dmd2.training.strategies import ProcessEnvironment

KNOWN_WARNINGS = (
    ".*module\\(s\\) in eval mode at the start of training",  # distillation runs without dropout
    ".*LeafSpec.* is deprecated",
    ".*directory .* exists and is not empty",
    ".*Using ModelCheckpoint with manual optimization",  # no pre-optimization state: none is wanted
    ".*does not have many workers",
    ".*lr_scheduler.step.*before `optimizer.step",  # a critic's head start: no generator update yet
    ".*`srun` command is available",  # our launcher starts the processes
)
"""What Lightning says on every run and nobody can act on; everything else is still heard."""


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a config node with plain containers, and with `extra` arguments."""
    return instantiate(OmegaConf.create(node), _convert_="all", **extra)


def makes(node: Config | None, *kinds: type) -> bool:
    """Whether what a config node calls is one of these classes or a subclass, under any name."""
    kind = get_object(node["_target_"]) if node and "_target_" in node else None
    return isinstance(kind, type) and issubclass(kind, kinds)


def build_with(node: Config, parts: Mapping[str, Any]) -> Any:
    """Instantiate a config node with those of a run's `parts` that its class has parameters for.

    So a callback is complete when it is built, and one of a user's own may ask for the same parts
    by their names.
    """
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    return build(node, **{name: part for name, part in parts.items() if name in parameters})


def device_for(config: Config) -> torch.device:
    """The device of networks outside of a trainer: a GPU if the run used one and one is here."""
    on_gpu = config["trainer"]["accelerator"] == "gpu" and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def set_tf32(config: Config) -> None:
    """Let a GPU compute float32 matrix products and convolutions in TF32, or not.

    torch by itself does one and not the other: convolutions alone.
    """
    is_on = config.get("tf32", True)  # a run of a version without the key
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_on


def build_guidance(section: Config) -> float | Guidance:
    """The guidance of a teacher section: a number, or what its node describes."""
    guidance: float | Guidance = section["guidance"]
    return build(guidance) if isinstance(guidance, Mapping) else guidance


def kept_dtype(section: Config) -> torch.dtype | None:
    """What a teacher section keeps its weights as; None leaves them as they are."""
    return None if section.get("dtype") is None else dtype_of(section["dtype"])


def build_data(node: Config, **extra: Any) -> DataModule:
    """The data module, prepared and set up."""
    data: DataModule = build(node, **extra)
    data.prepare_data()
    data.setup()
    return data


def build_trainer(
    config: Config, max_steps: int, callbacks: list[L.Callback], logger: Any
) -> L.Trainer:
    """A Lightning trainer that leaves bars, checkpoints and logging to our callbacks."""
    set_tf32(config)
    # Here and not at import: a notebook that builds no trainer keeps its warnings.
    for phrase in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", phrase)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning takes its checkpoint IO as a plugin, and knows no other way to get one.
    io = [callback.io for callback in callbacks if isinstance(callback, Checkpoint)]
    return build(
        trainer_of(config),
        max_steps=max_steps,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=config["paths"]["run"],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(io),
        # Named, or Lightning would answer Slurm's signals in its own way.
        plugins=[*io, ProcessEnvironment()],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
