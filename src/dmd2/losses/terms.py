"""Loss terms as a YAML lists them: thin shells over the equations in `functional`. A term's
presence is its flag.

Each term has a weight and the name of the noised view it reads; `(turn) -> (loss, logs)`, logs
beside the loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmd2.losses import functional as F
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Logs
from dmd2.losses.weighting import Weighting

NUM_LEVELS = 4
"""Noise levels are logged in this many equal parts of t."""


def by_level(values: Tensor, t: Tensor) -> Logs:
    """Means of per-sample values [B] over equal parts of t; NaN where no sample fell."""
    level = (t * NUM_LEVELS).long().clamp(0, NUM_LEVELS - 1)
    inside = level == torch.arange(NUM_LEVELS, device=t.device)[:, None]  # [levels, B]
    means = (inside * values).sum(1) / inside.sum(1)
    return {f"t{i / NUM_LEVELS:.2f}": means[i] for i in range(NUM_LEVELS)}


class DistributionMatching:
    """The score difference at the samples (DMD Eq. 7) under DMD's weight (Eq. 8)."""

    needs: frozenset[str] = frozenset()

    def __init__(
        self, weight: float = 1.0, view: str = "dm", guidance: float = 1.0, floor: float = 1e-6
    ) -> None:
        self.weight, self.view, self.guidance, self.floor = weight, view, guidance, floor

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        real = turn.teacher_x0(self.view, self.guidance)
        fake = turn.critic_x0(self.view)
        x = turn.x.detach()
        difference = F.score_difference(real, fake)
        gradient, num_scrubbed = F.scrub(difference / F.normaliser(x, real, self.floor))
        score_gap = by_level(difference.flatten(1).abs().mean(1), turn.view(self.view).t)
        logs = {f"score_gap_{part}": value for part, value in score_gap.items()}
        return F.surrogate(turn.x, gradient), logs | {"num_scrubbed": num_scrubbed.float()}


class GANGenerator:
    """The generator's half of the GAN loss (DMD2 Eq. 4), on a noised view of the samples."""

    needs = frozenset({"discriminator"})

    def __init__(self, weight: float, view: str = "gan") -> None:
        self.weight, self.view = weight, view

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        return F.gan_generator(turn.logits(self.view)), {}


class Regression(nn.Module):
    """DMD's regression on noise-image pairs (DMD Eq. 9): distance(G(z_ref), y_ref)."""

    view = None
    needs = frozenset({"pairs"})

    def __init__(self, weight: float, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.distance = weight, distance

    def forward(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        assert turn.pair_image is not None
        return self.distance(turn.paired, turn.pair_image), {}


class Denoising:
    """The critic's denoising loss on the samples (DMD Eq. 6)."""

    needs: frozenset[str] = frozenset()

    def __init__(self, weighting: Weighting, weight: float = 1.0, view: str = "critic") -> None:
        self.weight, self.view, self.weighting = weight, view, weighting

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        alpha, sigma = turn.models.teacher.schedule.alpha_sigma(turn.fake(self.view).t)
        return F.denoising(turn.critic_x0(self.view), turn.x, self.weighting(alpha, sigma)), {}


class GANCritic:
    """The head's half of the GAN loss (DMD2 Eq. 4): real and generated samples in one pass, noised
    alike.
    """

    needs = frozenset({"discriminator", "real"})

    def __init__(self, weight: float, view: str = "critic") -> None:
        self.weight, self.view = weight, view

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        real, fake = turn.logits(self.view).tensor_split([-len(turn.x)])
        accuracy_real, accuracy_fake = F.accuracy(real, fake)
        logs = {"accuracy_real": accuracy_real, "accuracy_fake": accuracy_fake}
        return F.gan_critic(real, fake), logs
