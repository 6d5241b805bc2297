"""What Lightning runs in a simulation: made-up batches, and a callback that takes the numbers of
each iteration and says whose the tensors are.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from dmd2.benchmarks.meter import Meter
from dmd2.config.check import Config
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
    """Says whose the tensors are, and takes the numbers of each iteration.

    num  Rows of a share of a batch.
    """

    def __init__(self, meter: Meter, num: int) -> None:
        self.meter, self.num, self.forward, self.encoder = meter, num, Work(), Work()
        self.peak: Counter[str] = Counter()
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
        self.hooks = (
            module.generator.register_forward_pre_hook(self.entering),
            module.generator.register_forward_hook(self.leaving),
        )

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

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the peak of training, and count passes that no iteration made by themselves."""
        assert isinstance(module, DMD)
        self.peak = self.meter.ledger.peak.copy()
        for hook in self.hooks:  # what passes now is no iteration
            hook.remove()
        if not any(self.walks):  # critic_updates=1: every pass of the generator had a graph
            self.forward = self.pass_of(module, module.generator)
        if module.critic.discriminator is not None:  # the same in all networks
            self.encoder = self.pass_of(module, module.generator.features)

    def pass_of(self, module: DMD, network: Callable[..., Any]) -> Work:
        """A pass without a graph, of a share of the batch."""
        num, before = self.num, self.so_far()
        cond = module.models.conditioner(torch.zeros(num, dtype=torch.long))
        with torch.no_grad(), module.trainer.precision_plugin.forward_context():
            network(torch.zeros(num, *module.shape), torch.ones(num), cond)
        return self.so_far().plus(before, -1)

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
    terms = (term for term in module.objective.generator.values() if isinstance(term, nn.Module))
    for owner, network in [*networks.items(), *(("loss", term) for term in terms)]:
        if network is not None:
            yield owner, chain(network.parameters(), network.buffers())
