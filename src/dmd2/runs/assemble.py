"""A run's parts from its config: data, teacher, generator, critic and losses, checked together.

All that can be wrong with a config shows here, before a teacher is trained or read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.data.base import DataModule
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.evaluation.protocol import ScoringProtocol
from dmd2.evaluation.scoring import Evaluator
from dmd2.losses.objective import Objective
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.discriminator import discriminator_on
from dmd2.randomness import seeded
from dmd2.runs.build import build, build_data, makes
from dmd2.runs.compiled import check_compile
from dmd2.runs.copies import Copy, copy_for
from dmd2.runs.requirements import (
    check_batch,
    check_objective,
    check_starting_files,
    step_layer,
)
from dmd2.runs.teacher import Teacher, build_teacher, teacher_file
from dmd2.runs.weights import load_critic, load_fitting
from dmd2.training.callbacks.implicit_alignment import ImplicitAlignment, check_alignment
from dmd2.training.module import DMD

OPTIONS = (
    "critic_updates",
    "critic_head_start",
    "max_grad_norm",
    "accumulate",
    "ema",
    "log_every",
    "max_skipped_updates",
    "seed",
)
"""Keys of a config that `DMD` takes as they are."""


@dataclass(frozen=True)
class Parts:
    """What a run trains and scores with; the networks have no weights yet (`init_weights`)."""

    data: DataModule
    teacher: Teacher
    copies: Mapping[str, Copy]
    module: DMD
    evaluator: Evaluator

    def init_weights(self) -> None:
        """Give the teacher its weights, and generator and critic theirs."""
        self.teacher.load_or_train()
        # The critic's own network is its denoiser: discriminator and step embedding start fresh.
        networks = {"generator": self.module.generator, "critic": self.module.critic.denoiser}
        for name, network in networks.items():
            self.copies[name].init_from_teacher(network, self.teacher.denoiser)
        # After the copies, which begin with the weights in full precision.
        self.teacher.cast_weights()
        if self.copies["generator"].has_weights:
            self.module.ema.init_from(self.module.generator)


def assemble(config: Config, protocol: ScoringProtocol) -> Parts:
    """Build everything that a run is made of; whatever does not fit shows here.

    Raises ValueError, or FileNotFoundError where a file that the config names is not there.
    """
    # A machine without the GPUs that were asked for is said before any file is read.
    num_devices = processes(config) * config["trainer"].get("num_nodes", 1)
    teacher_path = teacher_file(config)
    check_starting_files(config)
    objective = build(config["loss"])  # LPIPS says what it lacks before data is decoded
    data, sampler = build_data(config["data"]), build(config["sampler"])
    check_objective(objective, sampler, config, data)
    check_batch(data, num_devices)
    # Without weights: a teacher that is to be trained is trained when all else fits.
    teacher = build_teacher(config, data, teacher_path)
    evaluator = Evaluator(protocol, data, teacher.conditioner, sampler)
    copies = {name: copy_for(config, name) for name in ("generator", "critic")}
    generator, fake = (copies[name].network(teacher.denoiser) for name in ("generator", "critic"))
    critic = build_critic(config, teacher, fake, objective, sampler, data.shape)
    options = module_options(config)
    module = build_module(teacher, generator, critic, objective, sampler, data.shape, options)
    check_compile(config, module)
    # Training says it, too, but after the teacher was trained.
    if any(makes(node, ImplicitAlignment) for node in config["callbacks"].values()):
        check_alignment(module)
    if copies["generator"].has_weights:
        load_starting_files(config, module)
    return Parts(data, teacher, copies, module, evaluator)


def build_critic(
    config: Config,
    teacher: Teacher,
    fake: Denoiser,
    objective: Objective,
    sampler: FewStepSampler,
    shape: tuple[int, ...],
) -> Critic:
    """The critic around the fake score network `fake`.

    It has a discriminator where a term needs one, and an embedding of the sampling step where
    `critic_step_layer` names its layer.
    """
    discriminator = step_embedding = None
    first = torch.zeros(1, dtype=torch.long)
    if "discriminator" in objective.needs:
        # Seeded apart, so that other networks' weights do not depend on whether there is a GAN. The
        # key keeps its first name: under another one the same seed would draw other weights.
        with seeded(config["seed"], "head"):
            head = build(config["teacher"]["head"])
            cond = teacher.conditioner(first)
            discriminator = discriminator_on(teacher.denoiser, head, shape, cond)
    if (layer := step_layer(config)) is not None:
        cond = teacher.conditioner(first)
        step_embedding = step_embedding_on(fake, layer, len(sampler.times), shape, cond)
    return Critic(fake, discriminator, config["discriminator_features"], step_embedding)


def build_module(
    teacher: Teacher,
    generator: Denoiser,
    critic: Critic,
    objective: Objective,
    sampler: FewStepSampler,
    shape: tuple[int, ...],
    options: Mapping[str, Any],
) -> DMD:
    """The module that trains generator and critic, with `DMD`'s further `options`.

    Raises ValueError where an optimizer does not take its options.
    """
    models = Models(teacher.denoiser, critic, teacher.conditioner)
    module = DMD(models, generator, objective, sampler, shape, **options)
    try:
        # Lightning would do it after the teacher was trained; a wrong option shows now.
        module.configure_optimizers()
    except TypeError as error:
        raise ValueError(f"an option of an optimizer.* is of a wrong type: {error}") from error
    return module


def module_options(config: Config) -> dict[str, Any]:
    """What a config says of the training itself, as `DMD` takes it."""
    optimizer = build(config["optimizer"])
    return {
        "optimizers": {name: optimizer[name] for name in ("generator", "critic")},
        "lr_factor": optimizer["lr_factor"],
        "critic_lr_factor": optimizer.get("critic_lr_factor"),  # none in a run of an older version
        **{key: config[key] for key in OPTIONS},
    }


def load_starting_files(config: Config, module: DMD) -> None:
    """Fill generator and critic from the files that a config names for them, if it does."""
    if config["weights"] is not None:
        load_fitting(module.generator, Path(config["weights"]), config["teacher"])
    if config["critic_weights"] is not None:
        load_critic(module.critic, Path(config["critic_weights"]))
