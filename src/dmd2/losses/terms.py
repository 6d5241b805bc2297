"""Loss terms: distribution matching, GAN (generator, discriminator), regression, denoising.

A YAML lists them. Each is thin over an equation in `functional`: a weight, the name of the noised
view that it reads, and `(turn) -> (loss, logs)`. There are no flags: a term is on where the loss
file lists it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmd2.diffusion.guidance import Guidance
from dmd2.losses import functional as F
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Logs
from dmd2.losses.weighting import Weighting

NUM_LEVELS = 4
"""Noise levels are logged in this many equal parts of t."""


def by_level(values: Tensor, t: Tensor) -> Logs:
    """Means of per-sample values [B] over equal parts of t [B]; NaN where a part has no sample."""
    # t = 1 belongs to the last part.
    level = (t * NUM_LEVELS).long().clamp(0, NUM_LEVELS - 1)
    inside = level == torch.arange(NUM_LEVELS, device=t.device)[:, None]  # [levels, B]
    # Masked sums: values[mask] would read the number of its rows back to the host.
    means = (inside * values).sum(1) / inside.sum(1)
    return {f"t{i / NUM_LEVELS:.2f}": means[i] for i in range(NUM_LEVELS)}


def error_ratio(x: Tensor, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """|fake - x|^2 over |real - x|^2 [], a mean over equal parts of t [B] that have samples."""
    # By level: the errors at high noise are far larger, and would hide all others.
    errors = [by_level(((x0 - x) ** 2).flatten(1).mean(1), t) for x0 in (fake, real)]
    return torch.stack([errors[0][level] / errors[1][level] for level in errors[0]]).nanmean()


class DistributionMatching:
    """Distribution matching gradient at the samples (DMD Eq. 7) under DMD's weight (Eq. 8).

    guidance  Classifier-free guidance of the real score; the fake score has none.
    floor     The least value of the weight's denominator.

    Logs the mean |fake - real| by noise level, how many samples had a non-finite gradient or are at
    `floor`, and how the critic stands to the teacher: `score_cosine`, and the ratio of their
    denoising errors |x0_hat - x|^2, `critic_to_teacher_error`. It is at most 1 for the best critic:
    nothing denoises the generator's samples better.
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        weight: float = 1.0,
        view: str = "dm",
        guidance: float | Guidance = 1.0,
        floor: float = 1e-6,
    ) -> None:
        self.weight, self.view, self.guidance, self.floor = weight, view, guidance, floor

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The surrogate loss [] (DMD Algorithm 2), and logs."""
        real = turn.teacher_x0(self.view, self.guidance)
        fake = turn.critic_x0(self.view)
        # Detached: the gradient is a constant of the surrogate loss, as in DMD Algorithm 2.
        x = turn.x.detach()
        # g = (mu_fake - mu_real) / mean |x - mu_real|: DMD Eq. 7 and 8.
        difference = F.score_difference(real, fake)
        # One bad sample must not spoil the batch, and must not go unseen.
        normaliser = F.normaliser(x, real, self.floor)
        gradient, num_scrubbed = F.scrub(difference / normaliser)
        t = turn.view(self.view).t
        score_gap = by_level(difference.flatten(1).abs().mean(1), t)
        logs = {f"score_gap_{part}": value for part, value in score_gap.items()}
        logs["num_scrubbed"] = num_scrubbed.float()
        logs["floor_share"] = (normaliser <= self.floor).float().mean()
        logs["score_cosine"] = F.score_cosine(x, real, fake).mean()
        logs["critic_to_teacher_error"] = error_ratio(x, real, fake, t)
        return F.surrogate(turn.x, gradient), logs


class GANGenerator:
    """The generator's half of the GAN loss (DMD2 Eq. 4), on a noised view of the samples."""

    needs = frozenset({"discriminator"})

    def __init__(self, weight: float, view: str = "gan") -> None:
        self.weight, self.view = weight, view

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the view's generated samples."""
        # -log sigmoid(D(fake_t)) (DMD2 Eq. 4).
        return F.gan_generator(turn.logits(self.view)), {}


class Regression(nn.Module):
    """DMD's regression on noise-image pairs (DMD Eq. 9): distance(G(z_ref), y_ref)."""

    # It compares clean images: nothing is noised.
    view = None
    needs = frozenset({"pairs"})

    def __init__(self, weight: float, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        # A module, so that a distance with weights (LPIPS) moves to the device with it.
        self.weight, self.distance = weight, distance

    def forward(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the turn's pairs; it logs nothing more."""
        assert turn.pair_image is not None  # `needs` asked for it
        # d(G(z_ref), y_ref) (DMD Eq. 9).
        return self.distance(turn.paired, turn.pair_image), {}


class Denoising:
    """The critic's denoising loss on the generated samples (DMD Eq. 6).

    weighting  lambda(alpha, sigma) of the squared x0 error: see `dmd2.losses.weighting`.
    """

    needs: frozenset[str] = frozenset()

    def __init__(self, weighting: Weighting, weight: float = 1.0, view: str = "critic") -> None:
        self.weight, self.view, self.weighting = weight, view, weighting

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the view's generated samples."""
        # Of the generated rows only: in a GAN view real rows come before them.
        alpha, sigma = turn.models.teacher.schedule.alpha_sigma(turn.fake(self.view).t)
        return F.denoising(turn.critic_x0(self.view), turn.x, self.weighting(alpha, sigma)), {}


class GANCritic:
    """The discriminator's half of the GAN loss (DMD2 Eq. 4), on noised real and generated samples.

    Both go through the encoder in one pass. Logs the shares that are classified correctly, and by
    noise level of both together.
    """

    needs = frozenset({"discriminator", "real"})

    def __init__(self, weight: float, view: str = "critic") -> None:
        self.weight, self.view = weight, view

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        """The loss [], and the discriminator's accuracies."""
        # From the end: there need not be as many real rows as generated ones.
        real, fake = turn.logits(self.view).tensor_split([-len(turn.x)])
        accuracy_real, accuracy_fake = F.accuracy(real, fake)
        logs = {"accuracy_real": accuracy_real, "accuracy_fake": accuracy_fake}
        correct = torch.cat([(real > 0).float().mean(1), (fake < 0).float().mean(1)])
        by_part = by_level(correct, turn.view(self.view).t)
        logs |= {f"accuracy_{part}": value for part, value in by_part.items()}
        return F.gan_critic(real, fake), logs
