"""A share of a batch in one iteration: what the generator starts from, and its turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dmd2.diffusion.conditioning import Cond, together
from dmd2.diffusion.steps import Steps
from dmd2.losses.objective import Objective
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.views import Models
from dmd2.randomness import Draws


@dataclass(frozen=True)
class Share:
    """As much of a batch as goes through the networks at once (gradient accumulation).

    models, objective  Who evaluates the samples, and by which loss terms.
    draws              The random numbers of this share.
    num                Samples of it, B.
    steps              The sampling step that makes each of them, [B].
    x_t, t, cond       The generator's input [B + P, ...], its times [B + P], and its condition.
                       The last P rows are noises of stored pairs, which share the generator's pass.
    real, real_cond    Real samples [B, ...] and their condition, where something reads them.
    pair_image         What the teacher made of the stored noises [P, ...], where a term reads it.
    """

    models: Models
    objective: Objective
    draws: Draws
    num: int
    steps: Steps
    x_t: Tensor
    t: Tensor
    cond: Cond
    real: Tensor | None
    real_cond: Cond
    pair_image: Tensor | None

    def samples_of(self, generated: Tensor) -> Tensor:
        """The samples [B, ...] among the generator's outputs [B + P, ...], detached."""
        # The last P rows are images of stored noises, which only the regression reads.
        return generated[: self.num].detach()

    def generator_turn(self, generated: Tensor) -> GeneratorTurn:
        """The generator's turn on its own outputs [B + P, ...], which have their graph."""
        return GeneratorTurn(
            models=self.models,
            draws=self.draws,
            steps=self.steps,
            times=self.objective.views,
            gan_views=self.objective.gan_views,
            decoded=self.objective.decoded,
            x=self.samples_of(generated),
            cond=self._sample_cond(),
            generated=generated,
            pair_image=self.pair_image,
            real=self.real,
            real_cond=self.real_cond,
        )

    def critic_turn(self, x: Tensor) -> CriticTurn:
        """The critic's turn on samples x [B, ...] of the generator's, with real ones beside."""
        return CriticTurn(
            models=self.models,
            draws=self.draws,
            steps=self.steps,
            times=self.objective.views,
            gan_views=self.objective.gan_views,
            decoded=self.objective.decoded,
            x=x,
            cond=self._sample_cond(),
            real=self.real,
            real_cond=self.real_cond,
        )

    def _sample_cond(self) -> Cond:
        """The condition of the samples alone, without that of the pairs."""
        # The condition of pairs is behind that of the samples, as their rows are.
        return {key: value[: self.num] for key, value in self.cond.items()}


def conditions(
    labels: Tensor,
    batch: dict[str, Any],
    conditioner: Callable[[Tensor], Cond],
    sampler_needs: frozenset[str],
    loss_needs: frozenset[str],
) -> tuple[Cond, Tensor | None, Cond]:
    """The condition of the generator's input, real samples [B, ...] and their condition.

    labels  Those drawn for the generator, int64 [B]; a sampler that starts from real samples takes
            theirs instead. Real samples are None where nothing needs them.
    """
    if "real" in sampler_needs:
        cond = conditioner(batch["label"])
        return cond, batch["real"], cond
    if "real" in loss_needs:
        # One pass of a text encoder for both.
        cond, real_cond = together(conditioner, labels, batch["label"])
        return cond, batch["real"], real_cond
    return conditioner(labels), None, {}


def split(batch: dict[str, Any], num: int) -> Iterator[dict[str, Any]]:
    """Cut a batch into `num` equal shares; what is no tensor, as its number, is the same in each.

    Raises ValueError where it does not divide.
    """
    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    if any(len(value) % num for value in tensors.values()):
        raise ValueError(
            f"accumulate={num} does not divide a batch of {len(batch['label'])}; "
            "set data.batch_size"
        )
    for i in range(num):
        yield batch | {key: value.chunk(num)[i] for key, value in tensors.items()}
