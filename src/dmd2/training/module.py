"""The LightningModule of DMD2: Algorithm 1 of Yin et al. (NeurIPS 2024), two networks stepped by
hand.

An iteration is one critic update; every `critic_updates`-th one updates the generator first. The
critic always trains on the samples that the generator turn made.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dmd2.diffusion.conditioning import Cond, join
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.losses.objective import Objective
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Logs, Turn
from dmd2.losses.views import Models
from dmd2.randomness import Draws
from dmd2.training.ema import EMA
from dmd2.training.manual_optimization import ManualOptimization


@dataclass(frozen=True)
class Round:
    """One share of a batch: what the generator starts from, and the real samples beside it, where
    they are read.

    Pairs, where there are any, ride in the same generator pass: the last rows of `x_t` are stored
    noises.
    """

    draws: Draws
    num: int
    step: int
    x_t: Tensor
    t: Tensor
    cond: Cond
    real: Tensor | None
    real_cond: Cond
    pair_image: Tensor | None

    def sampled(self, generated: Tensor) -> Tensor:
        """The samples among the generator's outputs: as many as the batch has rows."""
        return generated[: self.num]


class DMD(ManualOptimization):
    """Generator, critic and head against a frozen teacher, which stays out of the module's
    registry.
    """

    def __init__(
        self,
        models: Models,
        generator: Denoiser,
        objective: Objective,
        sampler: FewStepSampler,
        optimizers: dict[str, Callable[..., Optimizer]],
        lr_factor: Callable[[int], float],
        shape: tuple[int, ...],
        *,
        critic_updates: int,
        max_grad_norm: float,
        accumulate: int,
        ema: Sequence[float],
        log_every: int,
        max_skipped_updates: int,
        seed: int,
    ) -> None:
        super().__init__(max_grad_norm, log_every, max_skipped_updates)
        self.generator, self.critic = generator, models.critic
        self.ema = EMA(generator, ema)
        # In a tuple Lightning's registry does not see the teacher: not saved, not broadcast, not
        # optimized.
        self._models = (models,)
        self.objective, self.sampler, self.shape = objective, sampler, shape
        self.make_optimizer, self.lr_factor = optimizers, lr_factor
        self.critic_updates, self.accumulate, self.seed = critic_updates, accumulate, seed
        self.logs: Logs = {}
        """The latest of everything to log, on the device."""

    @property
    def models(self) -> Models:
        """The networks that judge samples."""
        return self._models[0]

    @property
    def is_generator_turn(self) -> bool:
        """Whether this iteration updates the generator first: every `critic_updates`-th, from the
        first on.
        """
        return self.iteration % self.critic_updates == 0

    def students(self) -> dict[str, Denoiser]:
        """The generator's weights to score, by name: averages first, then the raw ones."""
        return self.ema.named() | {"raw": self.generator}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """One iteration of Algorithm 1."""
        rounds = [self.start(share, i) for i, share in enumerate(shares(batch, self.accumulate))]
        samples: list[Tensor] = []
        if self.is_generator_turn:
            # Generator: down the score difference at its samples, which are kept for the critic.
            self.descend("generator", self.generator_turns(rounds, samples))
            self.ema.update(self.generator)
        else:
            with torch.no_grad():
                samples = [
                    round.sampled(self.generator(round.x_t, round.t, round.cond))
                    for round in rounds
                ]
        # Critic: denoise these samples, tell them from real ones.
        self.descend("critic", self.critic_turns(rounds, samples))
        self.advance()
        if self.iteration % self.log_every == 0:
            self.report(self.logs)

    def start(self, batch: dict[str, Tensor], index: int) -> Round:
        """Draw labels and noise, and make the generator's input: by backward simulation, or of real
        samples.
        """
        shard = self.global_rank * self.accumulate + index
        draws = Draws(
            self.seed, self.iteration, shard, self.trainer.world_size * self.accumulate, self.device
        )
        conditioner, num = self.models.conditioner, len(batch["label"])
        real, real_cond, pair_image = None, Cond(), None
        if "real" in self.objective.needs | self.sampler.needs:
            real, real_cond = batch["real"], conditioner(batch["label"])
        labels = draws.integers("label", 0, max(conditioner.num_classes, 1), num)
        cond = real_cond if "real" in self.sampler.needs else conditioner(labels)
        step = draws.step(len(self.sampler.times))
        noise = [draws.normal(f"noise{i}", (num, *self.shape)) for i in range(step + 1)]
        x_t, t = self.sampler.training_input(self.generator, noise, cond, step, real)
        if "pairs" in self.objective.needs and self.is_generator_turn:
            stored, first = self.sampler.walk(self.generator, [batch["pair_noise"]], {}, 0)
            x_t, t = torch.cat([x_t, stored]), torch.cat([t, first])
            cond, pair_image = join(cond, conditioner(batch["pair_label"])), batch["pair_image"]
        return Round(draws, num, step, x_t, t, cond, real, real_cond, pair_image)

    def generator_turns(self, rounds: Iterable[Round], samples: list[Tensor]) -> Iterator[Turn]:
        """Generate with a graph, round by round; the samples are added to `samples`, detached."""
        for round in rounds:
            generated = self.generator(round.x_t, round.t, round.cond)
            samples.append(round.sampled(generated).detach())
            yield GeneratorTurn(
                **self._turn(round, samples[-1]), generated=generated, pair_image=round.pair_image
            )

    def critic_turns(self, rounds: Iterable[Round], samples: Iterable[Tensor]) -> Iterator[Turn]:
        """The same samples, with real ones beside them."""
        for round, x in zip(rounds, samples, strict=True):
            yield CriticTurn(**self._turn(round, x), real=round.real, real_cond=round.real_cond)

    def _turn(self, round: Round, x: Tensor) -> dict[str, Any]:
        return {
            "models": self.models,
            "draws": round.draws,
            "step": round.step,
            "times": self.objective.views,
            "gan_views": self.objective.gan_views,
            "x": x,
            "cond": {key: value[: len(x)] for key, value in round.cond.items()},
        }

    def descend(self, network: str, turns: Iterable[Turn]) -> None:
        """One update of "generator" or "critic": the only place that touches an optimizer.

        Gradients add up over the turns; their mean over ranks, clipping, the guard against
        non-finite numbers and
        the step are `update`'s.
        """
        # Stepping the critic's through Lightning and the generator's raw makes global_step count
        # iterations.
        optimizers: Any = self.optimizers(use_pl_optimizer=network == "critic")
        optimizer = optimizers[NETWORKS.index(network)]
        optimizer.zero_grad()
        terms = getattr(self.objective, network)
        logs = [turn.backward(terms, 1 / self.accumulate) for turn in turns]
        found = {
            f"{network}/{name}": torch.stack([log[name] for log in logs]).mean(0)
            for name in logs[0]
        }
        self.logs |= self.update(optimizer, getattr(self, network), found, network)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """One optimizer a network, critic first, of what is not frozen, and its learning-rate
        factor by iteration.
        """
        trained = [
            [p for p in getattr(self, network).parameters() if p.requires_grad]
            for network in NETWORKS
        ]
        optimizers = [
            self.make_optimizer[network](weights)
            for network, weights in zip(NETWORKS, trained, strict=True)
        ]
        return optimizers, [LambdaLR(optimizer, self.lr_factor) for optimizer in optimizers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the next report would say of the last generator turn."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["logs"] = dict(self.logs)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on reporting where an earlier life left off."""
        super().on_load_checkpoint(checkpoint)
        self.logs = {name: value.to(self.device) for name, value in checkpoint["logs"].items()}

    def setup(self, stage: str) -> None:
        """Move what Lightning does not know, before any callback wants to score it."""
        for part in (
            self.models.teacher,
            self.models.conditioner,
            *self.objective.generator.values(),
        ):
            if isinstance(part, nn.Module):
                part.to(self.trainer.strategy.root_device)


NETWORKS = ("critic", "generator")


def shares(batch: dict[str, Tensor], num: int) -> Iterator[dict[str, Tensor]]:
    """Cut a batch into `num` equal shares, for accumulation; raises ValueError where it does not
    divide.
    """
    if any(len(value) % num for value in batch.values() if isinstance(value, Tensor)):
        raise ValueError(
            f"accumulate={num} does not divide a batch of {len(batch['label'])}; set "
            "data.batch_size"
        )
    for i in range(num):
        yield {
            key: value.chunk(num)[i] for key, value in batch.items() if isinstance(value, Tensor)
        }
