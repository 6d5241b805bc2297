"""From a config to objects, and from a run directory to objects: the only place that
instantiates.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from torch import nn

from dmd2.config.check import Config
from dmd2.config.devices import one_process, trainer_of
from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.files import key_of, locked, sha256
from dmd2.io.hub import dtype_of
from dmd2.io.tensors import load_weights, names_in, read_metadata, save_weights
from dmd2.randomness import seeded
from dmd2.runs.named_files import teacher_file
from dmd2.runs.quiet import quiet
from dmd2.training.callbacks.checkpoint import Checkpoint
from dmd2.training.callbacks.interrupt import Interrupt
from dmd2.training.callbacks.progress import Progress
from dmd2.training.pretrain import Pretrain
from dmd2.training.strategies import ProcessEnvironment
from dmd2.weights.architecture import check_architecture


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher, its conditioner, and the key of what it is: the name of all that is derived
    from it.

    Its weights are, or will be, in the file `path`; where they are not, it is trained on `data`.
    """

    denoiser: Denoiser
    conditioner: Conditioner
    key: str
    path: Path
    data: DataModule


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a config node with plain containers."""
    return instantiate(OmegaConf.create(node), _convert_="all", **extra)


def device_for(config: Config) -> torch.device:
    """Where a run's networks work outside of a trainer: the GPU if the run used one and there is
    one here.
    """
    on_gpu = config["trainer"]["accelerator"] == "gpu" and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def build_data(node: Config) -> DataModule:
    """The data module, prepared and set up."""
    data: DataModule = build(node)
    data.prepare_data()
    data.setup()
    return data


def build_teacher(config: Config, data: DataModule) -> Teacher:
    """The teacher that a config names, as yet without its weights.

    Raises ValueError where it does not fit the data, and FileNotFoundError where `teacher.weights`
    is not there.
    """
    section, path = config["teacher"], teacher_file(config)
    with seeded(0, "teacher"):
        denoiser: Denoiser = build(section["denoiser"])
    denoiser.requires_grad_(False).eval()
    conditioner = build(conditioner_of(section))
    check_fit(denoiser, conditioner, data)
    if path is not None:
        load_fitting(denoiser, path, section)
        return Teacher(denoiser, conditioner, sha256(path)[:16], path, data)
    if section["guidance"] != 1.0 and not section["pretrain"]["module"].get("condition_dropout"):
        raise ValueError(
            "guidance needs a teacher that knows the unconditional case; "
            "type +teacher.pretrain.module.condition_dropout=0.1, or teacher.guidance=1.0"
        )
    own = {**config["data"], **section["pretrain"]["data"]}
    own_data = build_data(own)
    drawn = [own.get(name) for name in ("batch_size", "seed", "flip")]
    key = key_of(
        section["denoiser"],
        section["conditioner"],
        section["pretrain"],
        drawn,
        own_data.fingerprint(),
    )
    path = Path(config["paths"]["cache"]) / "teachers" / f"{key}.safetensors"
    return Teacher(denoiser, conditioner, key, path, own_data)


def conditioner_of(section: Config) -> Config:
    """The node of a teacher's conditioner, with the text that guidance leads away from where one is
    named.
    """
    named = {"negative": section["negative"]} if section.get("negative") is not None else {}
    return section["conditioner"] | named


def load_or_train(teacher: Teacher, config: Config) -> None:
    """Fill a teacher from its file; one that is to be trained is trained first, once."""
    if not teacher.path.exists():
        with locked(teacher.path):
            if not teacher.path.exists():
                save_weights(train_teacher(config, teacher), teacher.path)
    load_denoiser(teacher.denoiser, teacher.path)


def shrink(teacher: Teacher, config: Config) -> None:
    """Keep a teacher's weights as `teacher.dtype`, once its students have them in float32."""
    if (dtype := config["teacher"].get("dtype")) is not None:
        nn.Module.to(
            teacher.denoiser.model, dtype_of(dtype)
        )  # diffusers' own warns of what it does not do


def load_denoiser(denoiser: Denoiser, path: Path) -> None:
    """Fill a denoiser from a file of ours, or from one of its network alone, as diffusers writes
    them.
    """
    is_ours = any(name.startswith("model.") for name in names_in(path))
    load_weights(denoiser if is_ours else denoiser.model, path)


def load_fitting(denoiser: Denoiser, path: Path, section: Config) -> None:
    """Fill a denoiser of a teacher section from a file; raises ValueError where the file says it is
    of another.
    """
    if "model" in section["denoiser"]:
        model = get_object(section["denoiser"]["model"]["_target_"])
        check_architecture(path, read_metadata(path), section, model)
    load_denoiser(denoiser, path)


def check_fit(denoiser: Denoiser, conditioner: Conditioner, data: DataModule) -> None:
    """Raise ValueError where the network does not take this data's shape or labels."""
    if conditioner.num_classes and not data.num_classes:
        raise ValueError(
            f"the teacher wants one of {conditioner.num_classes} classes, and this data has no "
            "labels; "
            "choose an unconditional teacher, or data in class folders"
        )
    if 0 < conditioner.num_classes < data.num_classes:
        raise ValueError(
            f"the data has labels up to {data.num_classes - 1}, out of range for a teacher of "
            f"{conditioner.num_classes} classes; choose another teacher or data"
        )
    try:
        with torch.no_grad():
            cond = conditioner(torch.zeros(1, dtype=torch.long))
            shape = denoiser(torch.zeros(1, *data.shape), torch.ones(1), cond).shape
    except RuntimeError as error:
        raise ValueError(
            f"the teacher does not take samples of shape {data.shape}: {error}"
        ) from error
    if tuple(shape[1:]) != data.shape:
        raise ValueError(
            f"the teacher makes samples of shape {tuple(shape[1:])}, the data has {data.shape}"
        )


def train_teacher(config: Config, teacher: Teacher) -> Denoiser:
    """The same network, trained from data by `teacher.pretrain`."""
    section = config["teacher"]["pretrain"]
    network = copy.deepcopy(teacher.denoiser).requires_grad_(True)
    conditioner = teacher.conditioner
    if (
        config["teacher"].get("negative") is not None
    ):  # for guidance alone: conditions are dropped to the plain twin
        conditioner = build(config["teacher"]["conditioner"])
    module: Pretrain = build(section["module"], denoiser=network, conditioner=conditioner)
    bar = Progress("teacher", section["max_iterations"], {"pretrain/loss": "loss"})
    interrupt = Interrupt()
    alone = config | {
        "trainer": one_process(config["trainer"])
    }  # a teacher does not depend on the number of ranks
    trainer = build_trainer(alone, section["max_iterations"], [bar, interrupt], logger=False)
    trainer.fit(module, datamodule=teacher.data)
    interrupt.raise_if_interrupted()
    module.nonfinite.check()
    return module.trained()


def build_trainer(
    config: Config, max_steps: int, callbacks: list[L.Callback], logger: Any
) -> L.Trainer:
    """A Lightning trainer that leaves bars, checkpoints and logging to our callbacks."""
    quiet()
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
        plugins=[
            *io,
            ProcessEnvironment(),
        ],  # named, or Lightning would answer Slurm's signals in its own way
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
