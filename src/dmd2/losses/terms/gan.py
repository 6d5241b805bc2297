"""Terms of the GAN: the generator's half, the discriminator's, and a penalty on its gradient."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dmd2.diffusion.schedules import expand
from dmd2.losses import functional as F, weighting
from dmd2.losses.levels import by_level
from dmd2.losses.term import Logs
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.weighting import Weighting


class GeneratorHalf:
    """The generator's half of any GAN, on a noised view of the samples.

    level_weight  Factor of each sample's loss, of alpha and sigma at its noise level: 1, or
                  `weighting.alpha2` (SenseFlow) or `weighting.signal`.
    """

    needs = frozenset({"discriminator"})
    decodes: frozenset[str] = frozenset()

    def __init__(
        self, weight: float, view: str = "gan", level_weight: Weighting = weighting.constant
    ) -> None:
        self.weight, self.view, self.level_weight = weight, view, level_weight

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the view's generated samples."""
        losses = self.losses(turn)
        alpha, sigma = turn.models.teacher.schedule.alpha_sigma(turn.view(self.view).t)
        return (expand(self.level_weight(alpha, sigma), losses) * losses).mean(), {}

    def losses(self, turn: GeneratorTurn) -> Tensor:
        """The loss of each logit [B, levels]."""
        raise NotImplementedError


class GANGenerator(GeneratorHalf):
    """The generator's half of the GAN loss (DMD2 Eq. 4), on a noised view of the samples.

    loss          Of each of the logits [B, levels]: `functional.gan_generator`, or
                  `hinge_generator`.
    level_weight  As `GeneratorHalf` has it.
    """

    def __init__(
        self,
        weight: float,
        view: str = "gan",
        loss: Callable[[Tensor], Tensor] = F.gan_generator,
        level_weight: Weighting = weighting.constant,
    ) -> None:
        super().__init__(weight, view, level_weight)
        self.loss = loss

    def losses(self, turn: GeneratorTurn) -> Tensor:
        """The loss of each logit [B, levels]."""
        # -log sigmoid(D(fake_t)) (DMD2 Eq. 4).
        return self.loss(turn.logits(self.view))


class RelativisticGANGenerator(GeneratorHalf):
    """The generator's half of the relativistic GAN (arXiv:1807.00734), beside the critic's.

    -log sigmoid(D(fake_t) - D(real_t')). Real samples are noised as the view is, and go through the
    encoder without a graph.
    """

    needs = frozenset({"discriminator", "real"})

    def losses(self, turn: GeneratorTurn) -> Tensor:
        """The loss of each logit [B, levels], a mean over pairs with all real rows."""
        with torch.no_grad():
            real = turn.models.logits(turn.real_view(self.view))
        return F.relativistic_generator(turn.logits(self.view), real)


class GANCritic:
    """The discriminator's half of the GAN loss (DMD2 Eq. 4), on noised real and generated samples.

    Both go through the encoder in one pass. Logs the shares that are classified correctly, and by
    noise level of both together.

    loss  Of real and fake logits [B, levels]: `functional.gan_critic`, or `hinge_critic`.
    """

    needs = frozenset({"discriminator", "real"})
    decodes: frozenset[str] = frozenset()

    def __init__(
        self,
        weight: float,
        view: str = "critic",
        loss: Callable[[Tensor, Tensor], Tensor] = F.gan_critic,
    ) -> None:
        self.weight, self.view, self.loss = weight, view, loss

    @property
    def is_logistic(self) -> bool:
        """Whether the best logit is log p_real / p_fake, as of `functional.gan_critic` alone."""
        # A YAML names a loss with `_partial_: true`.
        return (self.loss.func if isinstance(self.loss, partial) else self.loss) is F.gan_critic

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        """The loss [], and the discriminator's accuracies."""
        real, fake = self.logits(turn)
        accuracy_real, accuracy_fake = F.accuracy(real, fake)
        logs = {"accuracy_real": accuracy_real, "accuracy_fake": accuracy_fake}
        correct = torch.cat([(real > 0).float().mean(1), (fake < 0).float().mean(1)])
        by_part = by_level(correct, turn.view(self.view).t)
        logs |= {f"accuracy_{part}": value for part, value in by_part.items()}
        return self.loss(real, fake), logs

    def logits(self, turn: CriticTurn) -> tuple[Tensor, ...]:
        """Those of the real rows [R, levels], and those of the generated ones [B, levels]."""
        # From the end: there need not be as many real rows as generated ones.
        return turn.logits(self.view).tensor_split([-len(turn.x)])


class RelativisticGANCritic(GANCritic):
    """The discriminator's half of the relativistic GAN (arXiv:1807.00734).

    -log sigmoid(D(real_t) - D(fake_t')), a mean over all pairs of a pass. It fixes logits up to a
    constant: they are taken from the middle of both means, so that accuracies say something.
    """

    def __init__(self, weight: float, view: str = "critic") -> None:
        super().__init__(weight, view, F.relativistic_critic)

    def logits(self, turn: CriticTurn) -> tuple[Tensor, ...]:
        """Real [R, levels] and generated [B, levels], from the middle of their means."""
        real, fake = super().logits(turn)
        middle = (real.mean(0) + fake.mean(0)).detach() / 2
        return real - middle, fake - middle


class ApproximateR1:
    """Approximated R1 penalty (APT, arXiv:2501.08316): (D(x_t) - D(x_t + alpha std n))^2.

    Of real rows alone, with n from N(0, I). The noise in both inputs is the same, so that they
    differ as those of real samples x0 and x0 + std n do: at alpha = 0, where x_t holds no data, the
    penalty is 0. For small std it is alpha^2 std^2 |dD / dx_t|^2. It costs one more pass of the
    encoder over the real rows.

    std  Standard deviation of the change of real samples. Raises ValueError unless it is above 0.
    """

    needs = frozenset({"discriminator", "real"})
    decodes: frozenset[str] = frozenset()

    def __init__(self, weight: float, view: str = "critic", std: float = 0.1) -> None:
        if std <= 0:
            raise ValueError(
                f"std must be above 0, got {std}; type e.g. loss.critic.r1.std=0.1, or "
                "loss.critic.r1=null for no penalty"
            )
        self.weight, self.view, self.std = weight, view, std

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        """The penalty [], a mean over samples and levels."""
        view = turn.view(self.view)
        num_real = len(view.t) - len(turn.x)
        real = view.rows(slice(num_real))
        alpha, _ = turn.models.teacher.schedule.alpha_sigma(real.t)
        n = turn.draws.normal(f"{type(self).__name__}/{self.view}", tuple(real.x_t.shape))
        near = real.x_t + self.std * expand(alpha, real.x_t) * n
        change = turn.models.logits(replace(real, x_t=near)) - turn.logits(self.view)[:num_real]
        return torch.mean(change**2), {}
