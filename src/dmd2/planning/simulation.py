"""A training cycle on tensors without contents: its peak of memory, its operations, its FLOPs.

It is `DMD.training_step` itself, under Lightning, on one device. What a GPU would hold beside the
tensors (context, fragmentation, workspaces of cuDNN) is not in it.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod

import torch

from dmd2.benchmarks.iteration import random_module, shape_of
from dmd2.benchmarks.meter import Meter
from dmd2.config.check import Config
from dmd2.nets.autoencoder import VAE
from dmd2.planning.cuda_autocast import cuda_autocast
from dmd2.planning.dry_run import BUILDING, DryRun
from dmd2.planning.showing import Showing
from dmd2.planning.sizes import autoencoder_of, with_text
from dmd2.planning.stand_ins import with_stand_ins
from dmd2.planning.watch import Batches, Watch, Work
from dmd2.runs.build import build_trainer
from dmd2.training.module import DMD


@dataclass(frozen=True)
class Simulation:
    """What a training cycle takes on one device.

    peaks       Bytes by owner: at the peak of "training", of a "sample grid", of a "score".
    both        The iteration that updates generator and critic.
    alone       The iteration of the critic alone.
    forward     One pass of the generator without a graph (F).
    encoder     The critic's as far as the discriminator reads it (E); nothing without one.
    trained     Numbers that are trained, of "generator" and "critic".
    num         The generator's parameters, which are the teacher's.
    sample      Numbers of a sample.
    caption     Numbers of a caption's embedding; 0 without text.
    """

    peaks: dict[str, Counter[str]]
    both: Work
    alone: Work
    forward: Work
    encoder: Work
    trained: dict[str, int]
    num: int
    sample: int
    caption: int

    @property
    def most(self) -> int:
        """Bytes of tensors at the highest of the peaks."""
        return max(peak.total() for peak in self.peaks.values())

    def mean(self, critic_updates: int) -> Work:
        """The mean iteration of a cycle of `critic_updates` (TTUR)."""
        others = self.both.plus(self.alone, critic_updates - 1)
        return Work().plus(others, 1 / critic_updates)


def simulate(config: Config) -> Simulation:
    """A cycle of a config of `dmd2 train`, as on a GPU where its trainer is one.

    Raises ValueError where its text encoder or another part would have to be read from files.
    """
    with DryRun(BUILDING):
        module = random_module(with_stand_ins(config), shape_of(config["teacher"]))
        vae = autoencoder_of(config["teacher"])
    with cuda_autocast(), DryRun() as meter:
        return measured(config, module, meter, vae)


def measured(config: Config, module: DMD, meter: Meter, vae: VAE | None = None) -> Simulation:
    """An iteration of the critic alone, if there are any, one of generator and critic, a grid, and
    a score.
    """
    on_gpu = config["trainer"]["accelerator"] == "gpu"
    precision = config["trainer"].get("precision") or ("bf16-mixed" if on_gpu else "32-true")
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1}
    module.log_every = 10**9  # a report would read the device
    num = config["data"]["batch_size"] // config["accumulate"]
    watch, showing = Watch(meter, num), Showing(config, meter, vae)
    module.critic_updates = min(config["critic_updates"], 2)
    build_trainer(
        config | {"trainer": trainer | {"precision": precision}}, 3, [watch, showing], logger=False
    ).fit(module, datamodule=Batches(config, module.shape))
    # The walk of backward simulation has as many steps as are drawn: the mean is half of all.
    mean_walk = (len(module.sampler.times) - 1) / 2 * config["accumulate"]
    reads_walk = "real" not in module.sampler.needs
    samples = mean_walk + config["accumulate"]
    alone = watch.works[0].plus(watch.forward, (samples - watch.walks[0]) * reads_walk)
    both = watch.works[1].plus(watch.forward, (mean_walk - watch.walks[1]) * reads_walk)
    networks = {"generator": module.generator, "critic": module.critic}
    cond = module.models.conditioner(torch.zeros(1, dtype=torch.long))
    return Simulation(
        peaks={"training": with_text(config, watch.peak)} | showing.peaks,
        both=both,
        alone=alone,
        forward=watch.forward,
        encoder=watch.encoder,
        trained={
            name: sum(p.numel() for p in network.parameters() if p.requires_grad)
            for name, network in networks.items()
        },
        num=sum(p.numel() for p in module.models.teacher.parameters()),
        sample=prod(module.shape),
        caption=sum(cond[key].numel() for key in ("text", "pooled") if key in cond),
    )
