"""A run's teacher: found in a file or trained here once, and the key of all that is made of it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from dmd2.config.check import Config
from dmd2.config.devices import one_process
from dmd2.config.memory import without_memory
from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.guidance import Guidance
from dmd2.io.files import key_of, locked
from dmd2.io.hashed_tensors import save_hashed
from dmd2.io.hub import weights_of
from dmd2.io.tensors import weights_sha256
from dmd2.randomness import seeded
from dmd2.runs.build import build, build_data, build_guidance, build_trainer, kept_dtype
from dmd2.runs.loras import TeacherLoRA, encoder_with, read_loras, sha256_with
from dmd2.runs.pipeline_source import files_said
from dmd2.runs.requirements import check_described, check_fit
from dmd2.runs.weights import load_denoiser, load_fitting
from dmd2.training.callbacks.interrupt import Interrupt
from dmd2.training.callbacks.progress import Progress
from dmd2.training.pretrain import Pretrain
from dmd2.training.record import Record


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher.

    denoiser     The network, without its weights until `load_or_train`.
    conditioner  What it reads of labels or captions.
    path         File of its weights; where there is none yet, `train` makes them.
    key          Of all that decides what it makes of a noise and a label: weights, conditioner,
                 guidance, precision. Whatever is made with the teacher is cached under it.
    guidance     Classifier-free guidance; a scale of 1.0 is none.
    dtype        What its weights are kept as, once generator and critic have theirs; None leaves
                 them as they are.
    train        What trains it from data; None where its weights are published.
    published_sha256  Hash of a published file, which its key needed already: such a file may have
                      many gigabytes, and is hashed once.
    loras        What is added to the file's weights as they are loaded.
    """

    denoiser: Denoiser
    conditioner: Conditioner
    path: Path
    key: str
    guidance: float | Guidance = 1.0
    dtype: torch.dtype | None = None
    train: Callable[[], Denoiser] | None = None
    published_sha256: str | None = None
    loras: tuple[TeacherLoRA, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the file of its weights, which must be there, and of its LoRAs."""
        return sha256_with(self.published_sha256 or weights_sha256(self.path), self.loras)

    def load_or_train(self) -> None:
        """Fill the network from its file; one that is to be trained is trained first, once."""
        if self.train is not None and not self.path.exists():
            # Other runs that want the same teacher wait here, and find it.
            with locked(self.path):
                if not self.path.exists():
                    save_hashed(self.train().state_dict(), self.path)
        self.load()

    def load(self) -> None:
        """Fill the network from its file, which must be there, and merge the LoRAs."""
        load_denoiser(self.denoiser, self.path)
        for lora in self.loras:
            lora.merge(self.denoiser)

    def cast_weights(self) -> None:
        """Cast the weights to `dtype`; called after generator and critic have copied them."""
        if self.dtype is not None:
            # diffusers' own method would warn of what it does not do.
            nn.Module.to(self.denoiser.model, self.dtype)


def build_teacher(config: Config, data: DataModule, path: Path | None) -> Teacher:
    """The teacher that a config names, as yet without its weights.

    path  Its file, as `teacher_file` says; None where it is trained here.

    Raises ValueError where it does not fit the data, or its files say something else than the
    config.
    """
    section = config["teacher"]
    with seeded(0, "teacher"):
        denoiser: Denoiser = build(section["denoiser"])
    # Frozen once and for all; distillation runs without dropout, so in eval mode.
    denoiser.requires_grad_(False).eval()
    check_described(section, denoiser)
    loras = read_loras(section, denoiser)
    conditioner = build(conditioner_of(section))
    check_fit(denoiser, conditioner, data)
    train = published = None
    if path is not None:
        load_fitting(denoiser, path, section)
        published = weights_sha256(path)
        weights = published[:16]
    else:
        # Its own batches and flips: the same data, drawn as pretraining wants it.
        own_data = build_data(pretraining_node(config))
        weights = weights_key(config, own_data)
        path = Path(config["paths"]["cache"]) / "teachers" / f"{weights}.safetensors"
        train = partial(train_teacher, config, denoiser, conditioner, own_data)
    key = identity_key(section, sha256_with(weights, loras))
    guidance, dtype = build_guidance(section), kept_dtype(section)
    return Teacher(denoiser, conditioner, path, key, guidance, dtype, train, published, loras)


def teacher_file(config: Config) -> Path | None:
    """The file of published weights: `teacher.weights`, or that of the pipeline `teacher.source`.

    None where the teacher is trained here. Raises FileNotFoundError where it is not there, which
    says where a published one comes from, ValueError where none is named.
    """
    section = config["teacher"]
    if section.get("source") is not None and section["weights"] is None:
        return weights_of(section["source"], section["variant"])
    if section["weights"] is None:
        if section["pretrain"] is None:
            raise ValueError(
                "this teacher is not trained here; name its file: teacher.weights=FILE.safetensors"
            )
        return None
    path, url = Path(section["weights"]), section.get("url")
    if not path.is_file():
        hint = "name the teacher's file: teacher.weights=FILE"
        if url is not None:
            file = url.rpartition("/")[2]
            hint = f"download {url} and type: dmd2 import source={file} out={path}"
        raise FileNotFoundError(f"there are no weights at {path}; {hint}")
    return path


def conditioner_of(section: Config) -> Config:
    """The node of a teacher's conditioner, with guidance's negative text where there is one, and
    with what the teacher's LoRAs have for its text encoder.
    """
    node: Config = section["conditioner"]
    if section.get("loras") and "encoder" in node:
        node = node | {"encoder": encoder_with(node["encoder"], section["loras"])}
    is_named = section.get("negative") is not None
    return node | ({"negative": section["negative"]} if is_named else {})


def identity_key(section: Config, weights: str) -> str:
    """The key of what a denoiser of a teacher section makes of a noise and a label.

    weights  Of which the denoiser is: a hash of them, or of all that they are trained by.
    """
    read = ("denoiser", "guidance", "dtype", "autoencoder")
    said = [without_memory(section.get(name)) for name in read]
    files = files_said(section.get("source"))
    return key_of(weights, conditioner_of(section), said, *([files] if files else []))


def pretraining_node(config: Config) -> Config:
    """The run's data node, as `teacher.pretrain.data` changes it."""
    return {**config["data"], **config["teacher"]["pretrain"]["data"]}


def weights_key(config: Config, own_data: DataModule) -> str:
    """What the weights of a teacher that is trained here depend on."""
    section = config["teacher"]
    own = pretraining_node(config)
    drawn = [own.get(name) for name in ("batch_size", "seed", "flip")]
    # Everything that training reads; guidance and precision matter only afterwards.
    trained = (without_memory(section["denoiser"]), section["conditioner"], section["pretrain"])
    return key_of(*trained, drawn, own_data.fingerprint())


def train_teacher(
    config: Config, denoiser: Denoiser, conditioner: Conditioner, data: DataModule
) -> Denoiser:
    """The same network, trained from data by `teacher.pretrain`."""
    section = config["teacher"]["pretrain"]
    # A copy, since `denoiser` is frozen and shared; its weights are read from the file after.
    network = copy.deepcopy(denoiser).requires_grad_(True)
    if config["teacher"].get("negative") is not None:
        # The negative text is guidance's alone: conditions are dropped to the plain twin.
        conditioner = build(config["teacher"]["conditioner"])
    module: Pretrain = build(section["module"], denoiser=network, conditioner=conditioner)
    record, num = Record(), section["max_iterations"]
    bar = Progress("teacher", num, {"pretrain/loss": "loss"})
    # One process trains it: a teacher must not depend on the number of ranks.
    one = config | {"trainer": one_process(config["trainer"])}
    trainer = build_trainer(one, num, [bar, Interrupt(record)], logger=False)
    trainer.fit(module, datamodule=data)
    record.raise_if_interrupted()
    module.nonfinite.check()
    return module.trained()
