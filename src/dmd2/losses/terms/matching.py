"""Terms that move samples along the difference of both scores: distribution matching (DMD), its
weights by a density ratio (f-distill) or by pseudo-Huber (TDM), all steps but the first (DP-DMD),
and guidance augmentation (decoupled DMD).
"""

from collections.abc import Callable

from torch import Tensor

from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.schedules import expand
from dmd2.losses import functional as F
from dmd2.losses.levels import by_level, error_ratio
from dmd2.losses.term import Logs
from dmd2.losses.turns import GeneratorTurn


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
        # A guided teacher makes a pass of its own.
        self.decodes = frozenset({"teacher", "critic"} if guidance == 1.0 else {"critic"})

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The surrogate loss [] (DMD Algorithm 2), and logs."""
        real, fake = self.predictions(turn)
        # One bad sample must not spoil the batch, and must not go unseen.
        gradient, num_scrubbed = F.scrub(self.gradient(turn, real, fake))
        return F.surrogate(turn.x, gradient), self.logs(turn, real, fake, num_scrubbed.float())

    def predictions(self, turn: GeneratorTurn) -> tuple[Tensor, Tensor]:
        """Real and fake score as x0_hat [B, ...] each."""
        return turn.teacher_x0(self.view, self.guidance), turn.critic_x0(self.view)

    def logs(self, turn: GeneratorTurn, real: Tensor, fake: Tensor, num_scrubbed: Tensor) -> Logs:
        """What to log beside the loss."""
        x, t = turn.x.detach(), turn.view(self.view).t
        score_gap = by_level(F.score_difference(real, fake).flatten(1).abs().mean(1), t)
        logs = {f"score_gap_{part}": value for part, value in score_gap.items()}
        logs["num_scrubbed"] = num_scrubbed
        logs["floor_share"] = (F.normaliser(x, real, 0.0) <= self.floor).float().mean()
        logs["score_cosine"] = F.score_cosine(x, real, fake).mean()
        logs["critic_to_teacher_error"] = error_ratio(x, real, fake, t)
        return logs

    def gradient(self, turn: GeneratorTurn, real: Tensor, fake: Tensor) -> Tensor:
        """The gradient [B, ...] at the samples: a constant of the surrogate (DMD Algorithm 2)."""
        # g = (mu_fake - mu_real) / mean |x - mu_real|: DMD Eq. 7 and 8.
        return F.score_difference(real, fake) / F.normaliser(turn.x.detach(), real, self.floor)


class FDivergence(DistributionMatching):
    """Distribution matching that descends another f-divergence (f-distill, arXiv:2502.15681).

    The gradient is h(r) / mean h(r) times that of `DistributionMatching`, with h(r) = f''(r) r^2
    and r = p_real(x_t) / p_fake(x_t) = exp D(x_t), D the discriminator's logit: the critic's GAN
    term must be the logistic one. As published, r is clipped and h divided by its mean, here over
    the samples of one pass. Published and left out: before that, r is normalised by noise level,
    by an average histogram over bins of t.

    h     One of `dmd2.losses.divergences`; under the reverse KL this is `DistributionMatching`.
    clip  Least and greatest r. Raises ValueError unless they rise from at least 0.
    """

    needs = frozenset({"discriminator"})

    def __init__(
        self,
        h: Callable[[Tensor], Tensor],
        clip: tuple[float, float] = (0.1, 20.0),
        weight: float = 1.0,
        view: str = "dm",
        guidance: float | Guidance = 1.0,
        floor: float = 1e-6,
    ) -> None:
        super().__init__(weight, view, guidance, floor)
        if not 0 <= clip[0] < clip[1]:
            raise ValueError(
                f"clip must rise from at least 0, got {[*clip]}; type e.g. "
                "loss.generator.dm.clip=[0.1,20]"
            )
        self.h, self.clip = h, clip

    def gradient(self, turn: GeneratorTurn, real: Tensor, fake: Tensor) -> Tensor:
        """DMD's gradient [B, ...] times h(r) over the mean of h(r)."""
        low, high = self.clip
        # Of several tapped layers the mean logit: the geometric mean of their ratios.
        h = self.h(turn.logits(self.view).detach().mean(1).exp().clamp(low, high))
        # A logit that is NaN spoils the gradient of its own sample, which `scrub` then counts.
        return expand(h / h.nanmean(), real) * super().gradient(turn, real, fake)


class LaterStepsMatching(DistributionMatching):
    """Distribution matching of all steps but the first (DP-DMD, arXiv:2602.03139).

    The gradient is that of `DistributionMatching` for samples of the steps i > 0, and 0 for those
    of step 0. What the first step makes is left to another term, e.g. regression on the teacher's.
    A sampler of one step leaves nothing for it.
    """

    def gradient(self, turn: GeneratorTurn, real: Tensor, fake: Tensor) -> Tensor:
        """DMD's gradient [B, ...], and 0 for the samples of the first step."""
        later = (turn.steps.index > 0).float()
        return expand(later, real) * super().gradient(turn, real, fake)


class PseudoHuberMatching(DistributionMatching):
    """Distribution matching by the pseudo-Huber distance of both scores (TDM, arXiv:2503.06674).

    Its gradient (fake - real) / sqrt(mean (fake - real)^2 + c^2) has the same size for all samples
    whose scores differ by much more than c. TDM's own is this over the root of the number of
    entries: here, as in other terms, a loss is a mean over entries.

    c  TDM's 0.00054 sqrt(D) of a sample of D entries, over sqrt(D).
    """

    def __init__(
        self,
        weight: float = 1.0,
        view: str = "dm",
        guidance: float | Guidance = 1.0,
        c: float = 0.00054,
    ) -> None:
        super().__init__(weight, view, guidance)
        self.c = c

    def logs(self, turn: GeneratorTurn, real: Tensor, fake: Tensor, num_scrubbed: Tensor) -> Logs:
        """Those of `DistributionMatching` without its floor, which is not in this gradient."""
        logs = super().logs(turn, real, fake, num_scrubbed)
        del logs["floor_share"]
        return logs

    def gradient(self, turn: GeneratorTurn, real: Tensor, fake: Tensor) -> Tensor:
        """The pseudo-Huber distance's gradient [B, ...]."""
        difference = F.score_difference(real, fake)
        return difference / (F.per_sample_mean(difference**2) + self.c**2).sqrt()


class GuidanceAugmentation(DistributionMatching):
    """What guidance adds to distribution matching, alone (decoupled DMD, arXiv:2511.22677).

    The gradient of CFG augmentation, (mu(c) - mu_w(c)) / mean |x - mu_w(c)|, has the teacher's
    prediction mu in the fake score's place and the guided one mu_w in the real score's; mu - mu_w
    is (w - 1) (mu(null) - mu(c)). Beside a `DistributionMatching` of guidance 1 it gives guided DMD
    in two terms, each with a denominator of its own, whose views may have times of their own.

    guidance  The scale w, not 1. Raises ValueError for 1.
    floor     The least value of the weight's denominator.
    """

    def __init__(
        self,
        guidance: float | Guidance,
        weight: float = 1.0,
        view: str = "guidance",
        floor: float = 1e-6,
    ) -> None:
        if guidance == 1.0:
            raise ValueError(
                "guidance augmentation of scale 1 is none; type e.g. teacher.guidance=3, of a "
                "teacher that knows the unconditional case, as that of experiment=text2digits_dmd2"
            )
        super().__init__(weight, view, guidance, floor)
        self.decodes = frozenset({"teacher"})  # the critic is not asked

    def predictions(self, turn: GeneratorTurn) -> tuple[Tensor, Tensor]:
        """The guided and the plain prediction of the teacher, [B, ...] each."""
        return turn.teacher_x0(self.view, self.guidance), turn.teacher_x0(self.view, 1.0)

    def logs(self, turn: GeneratorTurn, real: Tensor, fake: Tensor, num_scrubbed: Tensor) -> Logs:
        """How many samples had a non-finite gradient."""
        return {"num_guidance_scrubbed": num_scrubbed}
