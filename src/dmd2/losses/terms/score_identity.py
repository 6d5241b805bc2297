"""Score identity distillation, SiD (Zhou et al. 2024, arXiv:2404.04057): the Fisher divergence."""

import torch
from torch import Tensor

from dmd2.diffusion.denoiser import guided
from dmd2.diffusion.guidance import Guidance
from dmd2.losses import functional as F
from dmd2.losses.term import Logs
from dmd2.losses.turns import GeneratorTurn


class ScoreIdentity:
    """SiD's loss, whose gradient goes through teacher and critic to the samples.

    mean (f_real - f_fake) ((f_real - x) - alpha (f_real - f_fake)) / mean |x - f_real|, with real
    and fake score f as predictions of x0 from x_t; the denominator is a constant for each sample.
    Without it, with the critic at its best and alpha = 0, the expectation is that of the Fisher
    divergence's (f_real - f_fake)^2, since E (x - f_fake | x_t) = 0.

    It keeps the activations of both. A view whose times end at 0.8 is the published one.

    alpha     What corrects for a critic that lags behind: 0.5 to 1.5; 1.0 and 1.2 are published.
              Raises ValueError below 0.
    guidance  Classifier-free guidance of the real score; the fake score has none.
    floor     The least value of the weight's denominator.
    """

    needs: frozenset[str] = frozenset()
    decodes: frozenset[str] = frozenset()  # it makes passes of its own

    def __init__(
        self,
        weight: float = 1.0,
        view: str = "sid",
        guidance: float | Guidance = 1.0,
        alpha: float = 1.0,
        floor: float = 1e-5,
    ) -> None:
        if alpha < 0:
            raise ValueError(
                f"alpha must be at least 0, got {alpha}; type e.g. loss.generator.sid.alpha=1.0"
            )
        self.weight, self.view, self.guidance = weight, view, guidance
        self.alpha, self.floor = alpha, floor

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [], and the mean square [] of the scores' difference."""
        view, models = turn.view(self.view), turn.models
        null = models.conditioner.null(view.cond) if self.guidance != 1.0 else {}
        # Of its own, for `leave_out`: other terms read these tensors, too.
        x, x_t = (tensor.view_as(tensor) for tensor in (turn.x, view.x_t))
        real = guided(models.teacher, x_t, view.t, view.cond, null, self.guidance)
        # Not the turn's remembered pass, which ends its graph where the discriminator reads.
        encoding = models.critic.encode(x_t, view.t, view.cond, view.steps.index)
        fake = models.critic.denoiser.decode(encoding)
        loss = F.score_identity(x, real, fake, self.alpha, self.floor)
        # One bad sample must not spoil the batch, and must not go unseen.
        difference = (real - fake).detach()
        is_bad = (~difference.isfinite()).flatten(1).any(1)
        for tensor in (x, x_t):
            F.leave_out(tensor, is_bad)
        fisher = torch.mean(F.scrub(difference)[0] ** 2)
        return loss, {"fisher": fisher, "num_scrubbed": is_bad.sum().float()}
