"""Time and memory of training iterations at full size, with random weights and random data.

Nothing has to be downloaded: the networks are built from the experiment's config, and no weights
are read.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dmd2.benchmarks.loader import RandomImages
from dmd2.benchmarks.prompts import random_conditions
from dmd2.benchmarks.timer import IterationTimer, by_kind, mean_of
from dmd2.config.check import Config, of_train
from dmd2.config.devices import processes
from dmd2.distributed.device import peak_memory_bytes
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.randomness import seeded
from dmd2.runs.assemble import build_critic, build_module, module_options
from dmd2.runs.build import build, build_trainer, kept_dtype
from dmd2.runs.compiled import check_compile, compile_networks
from dmd2.runs.copies import copy_for
from dmd2.runs.teacher import Teacher
from dmd2.training.module import DMD

NUM_SAMPLES = 1_000  # enough that no batch repeats an image
NO_TEXT = "embeddings of prompts are random; text encoders and the VAE are neither held nor timed"


def iteration(
    source: Path | None,
    experiment: str,
    trainer: str,
    batch_size: int,
    num_cold: int,
    num_rounds: int,
    overrides: list[str],
) -> list[str]:
    """A table of seconds by kind of iteration, by the clock and of this process's CPU time, the
    hours of the full run, and peak memory.

    source      None: images are random.
    experiment  A choice of conf/experiment without pairs. Text teachers need no files: embeddings
                of prompts are random, and neither text encoder nor VAE is in memory.
    trainer     A choice of conf/trainer.
    batch_size  Images on each device.
    num_cold    Rounds that are not timed; a round is `critic_updates` iterations, of which one
                updates the generator, too.
    num_rounds  Rounds that are timed; medians are shown. Two more iterations are counted: what
                torch dispatches but views, and the tensors that are alive.
    overrides   Further overrides of `dmd2 train`, e.g. ["lora=both"].

    Raises ValueError for a source, and for an experiment that needs pairs.
    """
    if source is not None:
        raise ValueError(f"this part makes its images up, got source={source}; leave source alone")
    # Behind the experiment, whose batch is for its own number of devices.
    sized = [f"trainer={trainer}", "global_batch=null", f"data.batch_size={batch_size}"]
    if (
        trainer != "cpu"
        and not torch.cuda.is_available()
        and "trainer.accelerator=cpu" not in overrides
    ):
        raise ValueError(
            f"part.trainer={trainer} wants a GPU, and there is none here; type part.trainer=cpu"
        )
    config = of_train([f"experiment={experiment}", *sized, *overrides])
    if config["pairs"] is not None:
        raise ValueError(
            f"{experiment} needs pairs, which cannot be made up; choose another part.experiment"
        )
    processes(config)  # says in a line where the trainer's devices are not there
    every = config["critic_updates"]
    num_timed = (num_cold + num_rounds) * every
    watch = IterationTimer(num_timed)
    # No logger and no checkpoint: their time depends on how often one wants them.
    with TemporaryDirectory() as folder:
        module, data = parts(config, Path(folder))
        check_compile(config, module)
        compile_networks(module, config["compile"])
        build_trainer(config, num_timed + min(every, 2), [watch], logger=False).fit(
            module, datamodule=data
        )
    cold = num_cold * every
    seconds, cpu = (by_kind(x[cold:], every) for x in (watch.seconds, watch.cpu_seconds))
    # Of one round: with critic_updates=1 there is no iteration of the critic alone.
    names = ["of generator and critic", "of the critic alone"][: len(seconds) - 1]
    mean, num = seconds[-1], config["max_iterations"]
    hours = mean * num / 3600
    return [
        "| iteration | s | CPU s | operations | most memory alive, GB |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {wall:.3g} | {own:.3g} | {meter.num_operations:,} | "
            f"{meter.ledger.peak.total() / 1e9:.3g} |"
            for name, wall, own, meter in zip(names, seconds, cpu, watch.meters, strict=False)
        ),
        f"| mean of {every} | {mean:.3g} | {cpu[-1]:.3g} | {mean_of(watch.meters, every):,.0f} | |",
        f"{batch_size} images a device, {batch_size / mean:,.3g} images/s each; {num:,} "
        f"iterations: {hours:,.0f} h",
        f"most memory held: {peak_memory_bytes() / 1e9:.1f} GB",
        *([NO_TEXT] if isinstance(module.models.teacher, DiffusersNet) else []),
    ]


def parts(config: Config, folder: Path) -> tuple[DMD, RandomImages]:
    """`random_module`, and random data.

    folder  Where the images go.
    """
    sizes = {"batch_size": config["data"]["batch_size"], "seed": config["seed"]}
    data = RandomImages(folder, shape_of(config["teacher"]), NUM_SAMPLES, **sizes)
    data.prepare_data()
    data.setup()
    return random_module(config, data.shape), data


def random_module(config: Config, shape: tuple[int, ...]) -> DMD:
    """The training module as `runs.assemble` builds it, with random weights and conditions.

    shape  Of one sample.
    """
    section = config["teacher"]
    # The order of a run: the teacher is drawn first, the copies take its weights, and only then
    # is it cast (a text teacher to bfloat16), so that generator and critic stay float32.
    with seeded(config["seed"], "teacher"):
        denoiser = build(section["denoiser"]).requires_grad_(False).eval()
    # A text encoder is not trained and, for SDXL, is 820M parameters to download.
    conditioner = random_conditions(denoiser, section["conditioner"])
    # There is no file, and the key is of no use: nothing is read or cached.
    teacher = Teacher(
        denoiser,
        conditioner,
        Path("none.safetensors"),
        "random weights",
        dtype=kept_dtype(section),
    )
    objective, sampler = build(config["loss"]), build(config["sampler"])
    generator, fake = (copy_for(config, name).network(denoiser) for name in ("generator", "critic"))
    critic = build_critic(config, teacher, fake, objective, sampler, shape)
    options = module_options(config)
    module = build_module(teacher, generator, critic, objective, sampler, shape, options)
    teacher.cast_weights()
    return module


def shape_of(section: Config) -> tuple[int, ...]:
    """The shape of a teacher's samples: [D] of points, [C, H, W] of images, or of latents, where it
    has an autoencoder.
    """
    if section.get("autoencoder"):
        shape: tuple[int, ...] = build(section["autoencoder"]).shape
        return shape
    network = section["denoiser"]["model"]
    if "dim" in network:
        return (network["dim"],)
    # EDM's networks name their size `img_resolution`, those of diffusers `sample_size`.
    size = network.get("img_resolution") or network["sample_size"]
    return network["in_channels"], size, size
