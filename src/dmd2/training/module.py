"""DMD2's training: generator and critic, manual optimization, two time-scale update rule (TTUR).

`DMD` is Algorithm 1 of Yin et al. (NeurIPS 2024). An iteration is one critic update; every
`critic_updates`-th one updates the generator first. The critic always trains on the very samples
that the generator made in this iteration, detached.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dmd2.diffusion.conditioning import join, sending
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.losses.objective import Objective
from dmd2.losses.term import Logs
from dmd2.losses.turns import Turn
from dmd2.losses.views import Models
from dmd2.randomness import Draws
from dmd2.training.ema import EMA
from dmd2.training.lr_schedule import Constant
from dmd2.training.manual_optimization import ManualOptimization
from dmd2.training.share import Share, conditions, split

Network = Literal["generator", "critic"]
NETWORKS: tuple[Network, Network] = ("critic", "generator")
"""The trained networks in the order of their optimizers."""


class DMD(ManualOptimization):
    """Generator and critic (fake score and discriminator) against a frozen teacher.

    models               Teacher, critic, and the conditioner that both and the generator read.
    generator            The few-step student.
    objective            The loss terms of both networks.
    sampler              The steps in which the generator is sampled, and so trained.
    shape                Of one sample, e.g. (3, 64, 64), where a batch says no other.
    optimizers           What makes the optimizer of "generator" and of "critic" from weights.
    lr_factor            The learning rates' factor at an iteration.
    critic_lr_factor     The same of the critic's alone; None: no other.
    critic_updates       Critic updates per generator update (DMD2 section 4.2: 5).
    critic_head_start    Iterations at the start that update the critic alone.
    max_grad_norm        Global L2 norm to which each network's gradient is clipped.
    accumulate           Shares that a batch is cut into (gradient accumulation).
    ema                  Decays of the averages of the generator's weights, per generator update.
    log_every            Iterations between reports; between them nothing is read from the device.
    max_skipped_updates  Updates that may be skipped for a number that is not finite.
    seed                 Of all that is drawn: labels, noise, times, sampling steps.
    """

    def __init__(
        self,
        models: Models,
        generator: Denoiser,
        objective: Objective,
        sampler: FewStepSampler,
        shape: tuple[int, ...],
        optimizers: Mapping[str, Callable[..., Optimizer]],
        lr_factor: Callable[[int], float] = Constant(),  # noqa: B008 - it has no state
        *,
        critic_lr_factor: Callable[[int], float] | None = None,
        critic_updates: int = 5,
        critic_head_start: int = 0,
        max_grad_norm: float = 10.0,
        accumulate: int = 1,
        ema: Sequence[float] = (),
        log_every: int = 50,
        max_skipped_updates: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(max_grad_norm, log_every, max_skipped_updates)
        self.generator, self.critic = generator, models.critic
        self.ema = EMA(generator, ema)
        # In a tuple Lightning's registry does not see the teacher: it is not saved, not broadcast
        # and not optimized.
        self._models = (models,)
        self.objective, self.sampler, self.shape = objective, sampler, shape
        self.make_optimizer = optimizers
        self.lr_factors = {"critic": critic_lr_factor or lr_factor, "generator": lr_factor}
        self.critic_updates, self.critic_head_start = critic_updates, critic_head_start
        self.accumulate, self.seed = accumulate, seed
        self.logs: Logs = {}
        """The latest of everything to log, on the device."""

    @property
    def models(self) -> Models:
        """The networks that evaluate samples."""
        return self._models[0]

    @property
    def is_generator_turn(self) -> bool:
        """Whether this iteration updates the generator first."""
        return self.updates_generator(self.iteration)

    def updates_generator(self, iteration: int) -> bool:
        """Whether an iteration does: every `critic_updates`-th after the critic's head start."""
        since_start = iteration - self.critic_head_start
        return since_start >= 0 and since_start % self.critic_updates == 0

    def students(self) -> dict[str, Denoiser]:
        """The generator's weights to score, by name: averages first, then the raw ones."""
        return self.ema.named() | {"raw": self.generator}

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """One iteration of Algorithm 1 on a batch of "label" [B] and what the losses need."""
        shares = [self.start(part, i) for i, part in enumerate(split(batch, self.accumulate))]
        samples: list[Tensor] = []
        if self.is_generator_turn:
            # Generator: down the score difference at its samples (DMD Eq. 7), kept for the critic.
            self.descend("generator", self.generator_turns(shares, samples))
            self.ema.update(self.generator)
        else:
            with torch.no_grad():
                samples = [s.samples_of(self.generator(s.x_t, s.t, s.cond)) for s in shares]
        # Critic: denoise these samples, tell them from real ones (DMD2 section 4.3).
        self.descend("critic", self.critic_turns(shares, samples))
        self.advance()
        if self.iteration % self.log_every == 0:
            self.report(self.logs)

    def start(self, batch: dict[str, Any], index: int) -> Share:
        """Draw labels and noise, and make the generator's input: by backward simulation (DMD2
        section 4.5), or of real samples as the sampler says.
        """
        # An index for every share of every rank: any split of a batch draws the same numbers.
        share = self.global_rank * self.accumulate + index
        num_shares = self.trainer.world_size * self.accumulate
        draws = Draws(self.seed, self.iteration, share, num_shares, self.device)
        num, shape = len(batch["label"]), batch.get("shape", self.shape)
        conditioner = sending(self.models.conditioner.at_size(batch.get("size")), self.device)
        # Labels are drawn uniformly, not taken from the batch: the generator needs no real data.
        labels = draws.labels(self.models.conditioner.num_classes, num)
        cond, real, real_cond = conditions(
            labels, batch, conditioner, self.sampler.needs, self.objective.needs
        )
        # Chosen for all shares: one of few samples has some of the steps.
        steps = self.sampler.choose_steps(draws, len(self.sampler.times), num * self.accumulate)
        step = steps[index * num : (index + 1) * num]
        # One noise a step: the first is the start, each later one re-noises x0.
        noise = [draws.normal(f"noise{i}", (num, *shape)) for i in range(max(step) + 1)]
        x_t, t = self.sampler.training_input(self.generator, noise, cond, step, real)
        pair_image = None
        if "pairs" in self.objective.needs and self.is_generator_turn:
            # Stored noises begin at the first step, whatever step the samples are made by.
            z = batch["pair_noise"]
            stored, first = self.sampler.walk(self.generator, [z], {}, [0] * len(z))
            x_t, t = torch.cat([x_t, stored]), torch.cat([t, first])
            cond, pair_image = join(cond, conditioner(batch["pair_label"])), batch["pair_image"]
        return Share(
            models=self.models,
            objective=self.objective,
            draws=draws,
            num=num,
            steps=self.sampler.steps_at(step, self.device),
            x_t=x_t,
            t=t,
            cond=cond,
            real=real,
            real_cond=real_cond,
            pair_image=pair_image,
        )

    def generator_turns(self, shares: Iterable[Share], samples: list[Tensor]) -> Iterator[Turn]:
        """Generate with a graph, share by share; the samples are added to `samples`, detached."""
        for share in shares:
            generated = self.generator(share.x_t, share.t, share.cond)
            samples.append(share.samples_of(generated))
            yield share.generator_turn(generated)

    def critic_turns(self, shares: Iterable[Share], samples: Iterable[Tensor]) -> Iterator[Turn]:
        """The critic's turns on these samples."""
        for share, x in zip(shares, samples, strict=True):
            yield share.critic_turn(x)

    def descend(self, name: Network, turns: Iterable[Turn]) -> None:
        """One update of a network: the only place that touches its optimizer.

        Gradients add up over the turns (gradient accumulation). Clipping, the guard against
        non-finite numbers and the step are `update`'s.
        """
        # Stepping the critic's through Lightning and the generator's raw makes Lightning's
        # global_step count iterations.
        optimizers: Any = self.optimizers(use_pl_optimizer=name == "critic")
        optimizer = optimizers[NETWORKS.index(name)]
        network, terms = getattr(self, name), getattr(self.objective, name)
        passes = (partial(turn.backward, terms, 1 / self.accumulate) for turn in turns)
        logs = self.mean_gradients(network, passes, self.accumulate)
        found = {f"{name}/{key}": value for key, value in logs.items()}
        self.logs |= self.update(optimizer, network, found, name)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """One optimizer a network, of its weights that are not frozen, and its learning rates."""
        own = {n: [p for p in getattr(self, n).parameters() if p.requires_grad] for n in NETWORKS}
        optimizers = {name: self.make_optimizer[name](weights) for name, weights in own.items()}
        rates = [LambdaLR(o, self.lr_factors[name]) for name, o in optimizers.items()]
        return [*optimizers.values()], rates

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the next report would say of the last generator update."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["logs"] = dict(self.logs)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on reporting where the resumed run was."""
        super().on_load_checkpoint(checkpoint)
        self.logs = {name: value.to(self.device) for name, value in checkpoint["logs"].items()}

    def setup(self, stage: str) -> None:
        """Move what Lightning does not know, before any callback wants to score it."""
        terms = self.objective.generator.values()
        # Lightning moves what its registry knows; the teacher and the terms' networks it does not.
        for part in (self.models.teacher, self.models.conditioner, *terms):
            if isinstance(part, nn.Module):
                part.to(self.trainer.strategy.root_device)
