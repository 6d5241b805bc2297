"""What the loss terms of one turn read: samples, noised views of them, and passes over a view.

A turn is one update of the generator or of the critic. A pass is made once, when a term first asks,
and remembered: terms that name the same view share it. The loss file chooses the views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Encoding, guided
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import TimeSampler
from dmd2.losses.term import Logs, Term
from dmd2.losses.views import Models, View
from dmd2.randomness import Draws


@dataclass(kw_only=True)
class Turn:
    """What both turns share: the samples, views of them, and passes over a view."""

    models: Models
    draws: Draws
    times: Mapping[str, TimeSampler]
    gan_views: frozenset[str]  # those that the discriminator reads
    decoded: frozenset[tuple[str, str]]  # passes, as (network, view), of which a term reads x0
    x: Tensor  # the generated samples [B, ...]
    cond: Cond
    steps: Steps  # of the sampler: those that made the samples [B]
    # What was made already, by view, and by network and view.
    _views: dict[str, View] = field(default_factory=dict, init=False)
    _encodings: dict[tuple[str, str], Encoding] = field(default_factory=dict, init=False)

    def samples(self, name: str) -> dict[str, tuple[Tensor, Cond, Steps]]:
        """The clean rows of a view, real before fake, with their conditions and steps."""
        return {"fake": (self.x, self.cond, self.steps)}

    def view(self, name: str) -> View:
        """The noised view called `name`: its times and noise are drawn once."""
        if name not in self._views:
            parts = [self._noised(name, part, *rows) for part, rows in self.samples(name).items()]
            self._views[name] = parts[0] if len(parts) == 1 else View.join(parts)
        return self._views[name]

    def _noised(self, name: str, part: str, x0: Tensor, cond: Cond, steps: Steps) -> View:
        # The class's name is in the stream: the turns of one iteration draw independently. Each
        # part draws for itself: so any number of ranks draws the same for a row of the batch.
        stream = f"{type(self).__name__}/{name}/{part}"
        schedule = self.models.teacher.schedule
        t = self.times[name](schedule, self.draws, f"{stream}/t", steps)
        noise = self.draws.normal(f"{stream}/noise", tuple(x0.shape))
        return View(schedule.add_noise(x0, noise, t), t, x0, cond, steps)

    def rows_for(self, who: str, name: str) -> View:
        """The rows of a view that "teacher" or "critic" passes over."""
        return self.view(name)

    def encoding(self, who: str, name: str) -> Encoding:
        """The encoder's pass of "teacher" or "critic" over a view, remembered.

        Only generated samples, the last rows, go on to the decoder, and none without `decoded`.
        """
        if (who, name) not in self._encodings:
            view, models = self.rows_for(who, name), self.models
            num = len(self.x) if (who, name) in self.decoded else 0
            rows = view.x_t, view.t, view.cond
            self._encodings[who, name] = (
                models.teacher.encode(*rows, num)
                if who == "teacher"
                else models.critic.encode(*rows, view.steps.index, num)
            )
        return self._encodings[who, name]

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        """Accumulate the gradients of `scale` times the weighted terms; what there is to log."""
        raise NotImplementedError

    def logits(self, name: str) -> Tensor:
        """The discriminator's logits [B, levels] on a view, one level a tapped layer."""
        critic = self.models.critic
        # Of other views the pass may have no graph, or no real rows: nothing would be trained.
        assert critic.discriminator is not None and name in self.gan_views
        features = self.encoding(critic.discriminator_features, name).features
        logits: Tensor = critic.discriminator(features)
        return logits


@dataclass(kw_only=True)
class GeneratorTurn(Turn):
    """Gradients flow to the generator alone; of remembered passes only what the discriminator reads
    keeps a graph.

    `generated` [B + P, ...] carries the generator's graph: B samples, then what it makes of the
    noise of P stored pairs, whose images are `pair_image` [P, ...]. `real` samples [R, ...] and
    their condition are there where something needs them.
    """

    generated: Tensor
    pair_image: Tensor | None
    real: Tensor | None = None
    real_cond: Cond = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Terms see a leaf in place of the samples: a term's graph is freed before the generator's
        # is walked, the critic's weights get no gradient, and each term's gradient at x is known.
        self.leaf = self.generated.detach().requires_grad_()
        self.x, self.paired = self.leaf.tensor_split([len(self.x)])

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        """One pass through the generator for all terms; logs each term's gradient norm at x."""
        logs: Logs = {}
        gradients: dict[str, Tensor] = {}
        for i, (name, term) in enumerate(terms.items()):
            loss, extra = term(self)
            shared = i + 1 < len(terms)  # another term may read the same view's graph
            # grad() and not backward(): nothing is added to any weight's .grad here.
            (gradient,) = torch.autograd.grad(term.weight * loss, self.leaf, retain_graph=shared)
            gradients[name] = gradient
            logs |= {f"loss_{name}": loss.detach(), **extra}
            logs[f"sample_gradient_{name}"] = gradient.norm()
        # d loss / d theta = (d loss / d x) (d x / d theta): the generator's graph is walked once.
        self.generated.backward(scale * torch.stack(list(gradients.values())).sum(0))
        # The first term is distribution matching in most loss files: GAN weights are tuned by this.
        first, *others = gradients
        # NaN where it has none here, as DP-DMD's of a batch of the first step.
        unit = logs[f"sample_gradient_{first}"]
        unit = unit.where(unit > 0, torch.nan)
        for name in others:
            logs[f"{name}_to_{first}"] = logs[f"sample_gradient_{name}"] / unit
        # The losses' values do not show convergence (DMD2 App. C): these statistics do.
        return logs | {"sample_mean": self.x.detach().mean(), "sample_std": self.x.detach().std()}

    @torch.enable_grad()
    def view(self, name: str) -> View:
        """The view, with a graph to the samples also when a term without one asks first."""
        return super().view(name)

    def real_view(self, name: str) -> View:
        """Real samples, noised as the view called `name` is, which has none of them itself."""
        assert self.real is not None  # a term's `needs` asked for it
        steps = self.steps.rows(slice(len(self.real)))
        return self._noised(name, "real", self.real, self.real_cond, steps)

    def encoding(self, who: str, name: str) -> Encoding:
        """The pass, with a graph where the discriminator reads it."""
        read = who == self.models.critic.discriminator_features and name in self.gan_views
        with torch.set_grad_enabled(read):
            return super().encoding(who, name)

    @torch.no_grad()
    def critic_x0(self, name: str) -> Tensor:
        """The fake score as x0_hat [B, ...], without a graph."""
        # Detached: the decoder must not hold on to the graph that the discriminator's pass kept.
        return self.models.critic.denoiser.decode(self.encoding("critic", name).detach())

    @torch.no_grad()
    def teacher_x0(self, name: str, guidance: float | Guidance) -> Tensor:
        """The real score as x0_hat [B, ...] under classifier-free guidance, without a graph."""
        teacher, view = self.models.teacher, self.view(name)
        if guidance == 1.0:
            return teacher.decode(self.encoding("teacher", name).detach())
        null = self.models.conditioner.null(view.cond)
        return guided(teacher, view.x_t.detach(), view.t, view.cond, null, guidance)


@dataclass(kw_only=True)
class CriticTurn(Turn):
    """Trains critic and discriminator on the generator's samples, detached.

    In GAN views the `real` rows, at most B, come first, with their own conditions.
    """

    real: Tensor | None
    real_cond: Cond

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        """One backward pass over the sum of the weighted terms."""
        logs: Logs = {}
        total = torch.zeros((), device=self.x.device)
        for name, term in terms.items():
            loss, extra = term(self)
            total = total + scale * term.weight * loss
            logs |= {f"loss_{name}": loss.detach(), **extra}
        total.backward()  # the terms share a pass's graph
        return logs

    def samples(self, name: str) -> dict[str, tuple[Tensor, Cond, Steps]]:
        """Real and generated rows where the discriminator reads the view, else generated ones."""
        if name not in self.gan_views:
            return super().samples(name)
        assert self.real is not None  # the objective's `needs` asked for it
        # The critic takes real row i for one of generated row i's step.
        real = self.real, self.real_cond, self.steps.rows(slice(len(self.real)))
        return {"real": real} | super().samples(name)

    def rows_for(self, who: str, name: str) -> View:
        """All rows of the view, or the generated ones where nobody reads the rest."""
        # A discriminator on the teacher leaves nobody who reads the critic's pass over real rows.
        skips_real = who == "critic" and self.models.critic.discriminator_features == "teacher"
        return self.fake(name) if skips_real else self.view(name)

    def encoding(self, who: str, name: str) -> Encoding:
        """The pass, with a graph for the critic and none for the frozen teacher."""
        with torch.set_grad_enabled(who == "critic"):
            return super().encoding(who, name)

    def fake(self, name: str) -> View:
        """The generated samples' rows of a view, which come last."""
        return self.view(name).last(len(self.x))

    def critic_x0(self, name: str) -> Tensor:
        """The fake score as x0_hat [B, ...] of the generated samples."""
        return self.models.critic.denoiser.decode(self.encoding("critic", name))
