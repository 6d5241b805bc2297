"""From a teacher to the networks that are trained against it: copies of it, or LoRA on it, and a
fresh GAN head.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.distributed.fsdp import meta_copy
from dmd2.distributed.process_group import rank
from dmd2.io.tensors import load_weights, names_in
from dmd2.losses.objective import Objective
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.discriminator import discriminator_on
from dmd2.randomness import seeded
from dmd2.runs.build import Teacher, build, load_fitting, load_or_train, shrink
from dmd2.training.module import DMD


def check_objective(
    objective: Objective, sampler: FewStepSampler, config: Config, data: DataModule
) -> None:
    """Raise ValueError where a loss term or the sampler needs what there is not."""
    provided = data.provides() | ({"pairs"} if config["pairs"] is not None else set())
    if missing := objective.needs - provided - {"discriminator"}:
        name = min(missing)
        raise ValueError(
            f"a loss term needs {name}, and the data gives only {', '.join(sorted(provided))}; "
            "type "
            + ("experiment=digits_dmd, whose file shows how" if name == "pairs" else "loss=no_gan")
        )
    if missing := sampler.needs - provided:
        raise ValueError(
            f"the sampler trains on {min(missing)} samples, and the data gives only "
            f"{', '.join(sorted(provided))}; "
            "type sampler=four_step, which makes its inputs itself"
        )
    if config["pairs"] is not None and "pairs" not in objective.needs:
        raise ValueError(
            "pairs would be made, and no loss term reads them; type pairs=null, or loss=dmd"
        )
    if (
        config["pairs"] is not None
        and config["teacher"].get("autoencoder")
        and config["pairs"]["dtype"] == "uint8"
    ):
        raise ValueError("latents do not fit into uint8; type pairs.dtype=float16")
    if config["discriminator_features"] != "critic" and "discriminator" not in objective.needs:
        raise ValueError(
            f"discriminator_features={config['discriminator_features']}, and no loss term has a "
            "discriminator; choose a loss with a GAN"
        )
    if config["critic_step_layer"] is not None and is_sharded_run(config):
        raise ValueError(
            "shards have no vectors of steps; type critic_step_layer=null, or trainer=ddp"
        )
    if config["critic_step_layer"] is not None and len(config["sampler"]["times"]) == 1:
        raise ValueError(
            "critic_step_layer tells the critic which step made its samples, and there is one; "
            "type critic_step_layer=null"
        )
    if "discriminator" in objective.needs and not config["teacher"]["denoiser"].get("taps"):
        raise ValueError(
            "a GAN term needs features; name layers with teacher.denoiser.taps=[LAYER,...]"
        )


def lora_of(config: Config, network: str) -> Any:
    """The LoRA that a config has for "generator" or "critic"; None where all its weights are
    trained.
    """
    return config.get("lora", {}).get(network)  # a run of an earlier version has no such section


def is_sharded_run(config: Config) -> bool:
    """Whether a config's ranks share the networks' weights."""
    return config["trainer"].get("strategy", {}).get("_target_", "").endswith("ShardedStrategy")


def is_sent(config: Config) -> bool:
    """Whether this rank's networks have no weights yet: it gets its part of rank 0's when they are
    cut.
    """
    return is_sharded_run(config) and rank() > 0


def player_on(teacher: Denoiser, config: Config, network: str) -> Denoiser:
    """A trainable copy of the teacher for "generator" or "critic"; with LoRA, small weights on the
    teacher's own.

    It stays in eval mode like its teacher: distillation runs without dropout.
    """
    if (node := lora_of(config, network)) is None:
        return copy.deepcopy(teacher).requires_grad_(True)
    if is_sharded_run(config):
        raise ValueError(
            "LoRA's networks share the teacher's weights, which shards would cut apart; type "
            "trainer=ddp"
        )
    with seeded(config["seed"], f"{network} LoRA"):
        return build(node)(teacher)


def build_module(
    config: Config,
    objective: Objective,
    sampler: FewStepSampler,
    teacher: Teacher,
    data: DataModule,
) -> DMD:
    """Generator and critic on the teacher, and a fresh head where a term needs one.

    All that can be wrong with a config shows here, before the teacher has its weights; `begin`
    hands them on.
    """
    networks = ("generator", "critic")
    if is_sent(config):
        generator, fake = (meta_copy(teacher.denoiser).requires_grad_(True) for _ in networks)
    else:
        generator, fake = (player_on(teacher.denoiser, config, network) for network in networks)
    head = step_embedding = None
    first = torch.zeros(1, dtype=torch.long)
    if "discriminator" in objective.needs:
        with seeded(config["seed"], "head"):
            level = build(config["teacher"]["head"])
            head = discriminator_on(teacher.denoiser, level, data.shape, teacher.conditioner(first))
    if (layer := config["critic_step_layer"]) is not None:
        cond = teacher.conditioner(first)
        step_embedding = step_embedding_on(fake, layer, len(sampler.times), data.shape, cond)
    optimizer = build(config["optimizer"])
    module = DMD(
        Models(
            teacher.denoiser,
            Critic(fake, head, config["discriminator_features"], step_embedding),
            teacher.conditioner,
        ),
        generator,
        objective,
        sampler,
        {network: optimizer[network] for network in networks},
        optimizer["lr_factor"],
        data.shape,
        **{key: config[key] for key in MODULE_KEYS},
    )
    try:
        module.configure_optimizers()
    except TypeError as error:
        raise ValueError(f"an option of an optimizer.* is of a wrong type: {error}") from error
    if is_sent(config):
        return module
    if config["weights"] is not None:
        load_fitting(module.generator, Path(config["weights"]), config["teacher"])
    if config["critic_weights"] is not None:
        load_critic(module.critic, Path(config["critic_weights"]))
    return module


def load_critic(critic: Critic, path: Path) -> None:
    """Fill a critic from a file; a head, and vectors of steps, stay fresh where the file has
    none.
    """
    parts = {name.partition(".")[0] for name in names_in(path)}
    head, step_embedding = (
        getattr(critic, part) if part in parts else None
        for part in ("discriminator", "step_embedding")
    )
    load_weights(Critic(critic.denoiser, head, step_embedding=step_embedding), path)


def begin(module: DMD, teacher: Teacher, config: Config) -> None:
    """Give the teacher its weights, and the networks theirs: copies of the teacher's, where no file
    was named.
    """
    load_or_train(teacher, config)
    networks = {"generator": module.generator, "critic": module.critic.denoiser}
    for key, (name, network) in zip(("weights", "critic_weights"), networks.items(), strict=True):
        # A file was read by `build_module`, and LoRA lies on the teacher's own weights.
        if config[key] is None and lora_of(config, name) is None and not is_sent(config):
            network.load_state_dict(teacher.denoiser.state_dict())
    shrink(teacher, config)
    if not is_sent(config):
        module.ema.begin(module.generator)


MODULE_KEYS = (
    "critic_updates",
    "max_grad_norm",
    "accumulate",
    "ema",
    "log_every",
    "max_skipped_updates",
    "seed",
)
