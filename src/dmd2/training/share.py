"""A share of a batch in one iteration: what the generator starts from, and its turns."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dmd2.diffusion.conditioning import Cond
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
    step               The sampling step that makes them.
    x_t, t, cond       The generator's input [B + P, ...], its times [B + P], and its condition.
                       The last P rows are noises of stored pairs, which share the generator's pass.
    real, real_cond    Real samples [B, ...] and their condition, where something reads them.
    pair_image         What the teacher made of the stored noises [P, ...], where a term reads it.
    """

    models: Models
    objective: Objective
    draws: Draws
    num: int
    step: int
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
            step=self.step,
            times=self.objective.views,
            gan_views=self.objective.gan_views,
            decoded=self.objective.decoded,
            x=self.samples_of(generated),
            cond=self._sample_cond(),
            generated=generated,
            pair_image=self.pair_image,
        )

    def critic_turn(self, x: Tensor) -> CriticTurn:
        """The critic's turn on samples x [B, ...] of the generator's, with real ones beside."""
        return CriticTurn(
            models=self.models,
            draws=self.draws,
            step=self.step,
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


def split(batch: dict[str, Tensor], num: int) -> Iterator[dict[str, Tensor]]:
    """Cut a batch into `num` equal shares; raises ValueError where it does not divide."""
    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    if any(len(value) % num for value in tensors.values()):
        raise ValueError(
            f"accumulate={num} does not divide a batch of {len(batch['label'])}; "
            "set data.batch_size"
        )
    for i in range(num):
        yield {key: value.chunk(num)[i] for key, value in tensors.items()}
