"""A training cycle on tensors without contents: its peak of memory, its operations, its FLOPs.

It is `DMD.training_step` itself, under Lightning, on one device. What a GPU would hold beside the
tensors (context, fragmentation) is not in it, and neither are text encoders.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from dmd2.benchmarks.iteration import random_module, shape_of
from dmd2.benchmarks.meter import Meter
from dmd2.config.check import Config
from dmd2.planning.cuda_autocast import cuda_autocast
from dmd2.planning.dry_run import BUILDING, DryRun
from dmd2.runs.build import build_trainer
from dmd2.training.module import DMD


@dataclass(frozen=True)
class Work:
    """Operations, their FLOPs (two a multiply-add), and the bytes that they read and write."""

    num_operations: float = 0.0
    flops: float = 0.0
    num_bytes: float = 0.0

    def plus(self, other: "Work", times: float) -> "Work":
        """This and `times` another."""
        return Work(
            self.num_operations + times * other.num_operations,
            self.flops + times * other.flops,
            self.num_bytes + times * other.num_bytes,
        )


@dataclass(frozen=True)
class Simulation:
    """What a training cycle takes on one device.

    peak        Bytes at the peak, by owner.
    both        The iteration that updates generator and critic.
    alone       The iteration of the critic alone.
    forward     One pass of the generator without a graph.
    trained     Numbers that are trained, of "generator" and "critic".
    num         The generator's parameters, which are the teacher's.
    """

    peak: Counter[str]
    both: Work
    alone: Work
    forward: Work
    trained: dict[str, int]
    num: int

    def mean(self, critic_updates: int) -> Work:
        """The mean iteration of a cycle of `critic_updates` (TTUR)."""
        others = self.both.plus(self.alone, critic_updates - 1)
        return Work().plus(others, 1 / critic_updates)


class Batches(L.LightningDataModule):
    """Two batches of a config's sizes; `consumed` counts those that were trained on."""

    def __init__(self, config: Config, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.num, self.sample_shape, self.consumed = config["data"]["batch_size"], shape, 0
        self.num_pairs = (config["pairs"] or {}).get("batch_size", 0)

    def train_dataloader(self) -> Any:
        """An iterator, since Lightning reads the length of what has one from a tensor."""
        return iter([self.batch(), self.batch()])

    def batch(self) -> dict[str, Tensor]:
        """A batch as data modules give it."""
        num, shape = self.num_pairs, self.sample_shape
        pairs = {
            "pair_noise": torch.zeros(num, *shape),
            "pair_image": torch.zeros(num, *shape),
            "pair_label": torch.zeros(num, dtype=torch.long),
        }
        real = {"real": torch.zeros(self.num, *shape)}
        return real | {"label": torch.zeros(self.num, dtype=torch.long)} | (pairs if num else {})


class Watch(L.Callback):
    """Says whose the tensors are, and takes the numbers of each iteration."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.forward = meter, Work()
        self.works: list[Work] = []
        self.walks = [0, 0]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Give the optimizers their states, as after a first step."""
        assert isinstance(module, DMD)
        for optimizer in trainer.optimizers:
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            for p in weights:
                p.grad = torch.zeros_like(p)
                p.register_post_accumulate_grad_hook(self.gradient)
            optimizer.step()
            optimizer.zero_grad()
        self.meter.ledger.own_all(owners(module))
        states = [s for o in trainer.optimizers for s in o.state.values()]
        self.meter.ledger.own(
            (x for state in states for x in state.values() if isinstance(x, Tensor)),
            "optimizer states",
        )
        self.meter.ledger.peak.clear()
        # Iteration 1 is the critic's alone, and what it leaves the generator's turn has to bear.
        trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = 1
        module.generator.register_forward_pre_hook(self.entering)
        module.generator.register_forward_hook(self.leaving)

    def gradient(self, parameter: Tensor) -> None:
        """A gradient is complete."""
        assert parameter.grad is not None
        self.meter.ledger.own([parameter.grad], "gradients")

    def entering(self, *_: Any) -> None:
        """The generator's pass begins."""
        self.before = self.so_far()

    def leaving(self, *_: Any) -> None:
        """It is over; one without a graph is a step of the walk, or the critic's sample."""
        if not torch.is_grad_enabled():
            self.forward = self.so_far().plus(self.before, -1)
            self.walks[len(self.works)] += 1

    def on_train_batch_start(self, *_: Any) -> None:
        """An iteration begins."""
        self.started = self.so_far()

    def on_train_batch_end(self, *_: Any) -> None:
        """It is over."""
        self.works.append(self.so_far().plus(self.started, -1))

    def so_far(self) -> Work:
        """All that was counted."""
        return Work(self.meter.num_operations, self.meter.flops, self.meter.num_bytes)


def owners(module: DMD) -> Iterator[tuple[str, Iterator[Tensor]]]:
    """The tensors of a training module by owner; LoRA's frozen ones are the teacher's own."""
    critic = module.critic
    networks: dict[str, nn.Module | None] = {
        "teacher's weights": module.models.teacher,
        "generator's weights": module.generator,
        "discriminator": critic.discriminator,
        "critic's weights": critic,
        "averages (EMA)": module.ema,
        "made-up conditions": module.models.conditioner,
    }
    for owner, network in networks.items():
        if network is not None:
            yield owner, chain(network.parameters(), network.buffers())


def simulate(config: Config) -> Simulation:
    """A cycle of a config of `dmd2 train`, as on a GPU where its trainer is one.

    Raises ValueError where its text encoder or another part would have to be read from files.
    """
    with DryRun(BUILDING):
        module = random_module(config, shape_of(config["teacher"]))
    with cuda_autocast(), DryRun() as meter:
        return measured(config, module, meter)


def measured(config: Config, module: DMD, meter: Meter) -> Simulation:
    """An iteration of the critic alone, if there are any, and then one of generator and critic."""
    on_gpu = config["trainer"]["accelerator"] == "gpu"
    precision = config["trainer"].get("precision") or ("bf16-mixed" if on_gpu else "32-true")
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1}
    module.log_every, watch = 10**9, Watch(meter)  # a report would read the device
    module.critic_updates = min(config["critic_updates"], 2)
    build_trainer(
        config | {"trainer": trainer | {"precision": precision}}, 3, [watch], logger=False
    ).fit(module, datamodule=Batches(config, module.shape))
    # The walk of backward simulation has as many steps as are drawn: the mean is half of all.
    mean_walk = (len(module.sampler.times) - 1) / 2 * config["accumulate"]
    reads_walk = "real" not in module.sampler.needs
    samples = mean_walk + config["accumulate"]
    alone = watch.works[0].plus(watch.forward, (samples - watch.walks[0]) * reads_walk)
    both = watch.works[1].plus(watch.forward, (mean_walk - watch.walks[1]) * reads_walk)
    networks = {"generator": module.generator, "critic": module.critic}
    return Simulation(
        peak=meter.ledger.peak,
        both=both,
        alone=alone,
        forward=watch.forward,
        trained={
            name: sum(p.numel() for p in network.parameters() if p.requires_grad)
            for name, network in networks.items()
        },
        num=sum(p.numel() for p in module.models.teacher.parameters()),
    )
