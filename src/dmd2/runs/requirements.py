"""What losses, sampler, teacher, data and files need of each other, checked before training."""

from pathlib import Path

import torch

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.data.latents import Latents
from dmd2.data.prompts import Captioned
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.distributed.rank_zero import warn
from dmd2.losses.objective import Objective
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.pipeline import check_agrees
from dmd2.randomness import Draws
from dmd2.runs.build import build
from dmd2.runs.copies import wants_shards
from dmd2.runs.sizes import shape_at
from dmd2.runs.term_requirements import check_first_step, check_later_steps, check_terms


def step_layer(config: Config) -> str | None:
    """The layer by which the critic is told the sampling step; None where it is not told."""
    layer = config["critic_step_layer"]
    return layer if layer is None or isinstance(layer, str) else build(layer)


def check_objective(
    objective: Objective, sampler: FewStepSampler, config: Config, data: DataModule
) -> None:
    """Raise ValueError where a loss term or the sampler needs what there is not, or they do not go
    together.
    """
    check_terms(objective, data, config["accumulate"])
    check_later_steps(objective, sampler, config)
    check_first_step(sampler, config["pairs"], data)
    # Raises where a device has no equal share of samples for each of the sampler's steps.
    sampler.choose_steps(Draws(0, 0), len(sampler.times), data.batch_size)
    pairs, provided = config["pairs"], data.provides()
    if pairs is not None:
        provided = provided | {"pairs"}
    if "pairs" in provided and isinstance(data, Captioned) and data.buckets:
        raise ValueError("pairs have one size; set data.buckets=null, or pairs=null")
    has_gan = "discriminator" in objective.needs
    if missing := objective.needs - provided - {"discriminator"}:
        name = min(missing)
        raise ValueError(
            f"a loss term needs {name}, and the data gives only {', '.join(sorted(provided))}; "
            "type "
            + (
                "loss=no_gan"
                if name != "pairs"
                else "experiment=digits_dmd, whose file in conf/experiment shows them"
            )
        )
    if missing := sampler.needs - provided:
        raise ValueError(
            f"the sampler trains on {min(missing)} samples, and the data gives only "
            f"{', '.join(sorted(provided))}; "
            "type sampler=four_step, which makes its inputs itself"
        )
    if data.reals == "pairs" and pairs is None:
        raise ValueError(
            "data.reals=pairs takes the teacher's samples as real ones, and none are made; type "
            "experiment=digits_teacher_samples, whose file shows how, or data.reals=data"
        )
    if pairs is not None and "pairs" not in objective.needs and data.reals == "data":
        raise ValueError(
            "pairs would be made, and no loss term reads them; type pairs=null, or loss=dmd"
        )
    if pairs is not None and config["teacher"].get("autoencoder") and pairs["dtype"] == "uint8":
        raise ValueError("latents do not fit into uint8; type pairs.dtype=float16")
    if config["discriminator_features"] != "critic" and not has_gan:
        raise ValueError(
            f"discriminator_features={config['discriminator_features']}, and no loss term has a "
            "discriminator; choose a loss with a GAN"
        )
    layer = step_layer(config)
    if layer is not None and wants_shards(config):
        raise ValueError(
            "shards have no embedding of steps; type critic_step_layer=null, or trainer=ddp"
        )
    if layer is not None and len(sampler.times) == 1:
        raise ValueError(
            "critic_step_layer tells the critic which step made its samples, and there is one; "
            "type critic_step_layer=null"
        )
    if has_gan and not config["teacher"]["denoiser"].get("taps"):
        raise ValueError(
            "a GAN term needs features; name layers with teacher.denoiser.taps=[LAYER,...]"
        )


def check_batch(data: DataModule, num_devices: int) -> None:
    """Say where a batch of all devices has more samples than there are: it repeats some."""
    splits = data.splits if isinstance(data, Latents) else [data.train]
    num, total = min(map(len, splits)), data.batch_size * num_devices
    if total > num:
        where = "the data" if len(splits) == 1 else "the smallest bucket"
        warn(
            f"a batch has {total:,} samples, and {where} {num:,}: each batch repeats some; type "
            f"data.batch_size={max(num // num_devices, 1)} for one that does not"
        )


def check_starting_files(config: Config) -> None:
    """Raise FileNotFoundError where a file of weights to start from is not there."""
    for key in ("weights", "critic_weights"):
        if config[key] is not None and not Path(config[key]).is_file():
            raise FileNotFoundError(
                f"there are no weights at {config[key]}, where {key} looks; "
                f"train what they are of first, or type {key}=FILE.safetensors"
            )


def check_labels(conditioner: Conditioner, data: DataModule) -> None:
    """Raise ValueError where a teacher of these classes does not take this data's labels."""
    if conditioner.num_classes and not data.num_classes:
        raise ValueError(
            f"the teacher wants one of {conditioner.num_classes} classes, and this data has no "
            "labels; choose an unconditional teacher, or data in class folders"
        )
    if 0 < conditioner.num_classes < data.num_classes:
        raise ValueError(
            f"the data has labels up to {data.num_classes - 1}, out of range for a teacher of "
            f"{conditioner.num_classes} classes; choose another teacher or data"
        )
    if 0 < data.num_classes < conditioner.num_classes:
        warn(
            f"the data has {data.num_classes} classes, and the teacher {conditioner.num_classes}: "
            f"all of the teacher's are asked for, and from {data.num_classes} on none has real "
            "samples; the others must be the same ones in the same order"
        )


def check_fit(denoiser: Denoiser, conditioner: Conditioner, data: DataModule) -> None:
    """Raise ValueError where the network does not take this data's shape or labels."""
    check_labels(conditioner, data)
    try:
        with torch.no_grad():
            # A dry run on one sample: it says more than any comparison of numbers in configs.
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
    # Without a pass for each: a large network takes minutes for them on a CPU.
    for size in data.buckets if isinstance(data, Captioned) else ():
        shape_at(denoiser, data, size)


def check_described(section: Config, denoiser: Denoiser) -> None:
    """Raise ValueError where a pipeline's files say something else than its denoiser's node."""
    # One that was read from the files needs no comparison with them.
    if section.get("source") is None or "source" in section["denoiser"]:
        return
    if isinstance(denoiser, DiffusersNet):
        size = (section.get("autoencoder") or {}).get("resolution")
        check_agrees(section["source"], denoiser, size)
