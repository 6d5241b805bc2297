"""What the loss terms of one turn see: the samples, their noised views, and each network's passes
over a view.

A pass is made once, when a term first asks, and remembered: terms that name the same view share it.
Which views exist and who shares them is the loss file's choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Encoding, guided
from dmd2.diffusion.schedules import TimeSampler
from dmd2.losses.views import Models, View
from dmd2.randomness import Draws

Logs = dict[str, Tensor]


class Term(Protocol):
    """One row of the loss file: a weight, and (turn) -> (loss, what else to log)."""

    weight: float
    view: str | None
    needs: frozenset[str]
    """Of "discriminator", "real", "pairs": what it reads beyond the samples."""

    def __call__(self, turn: Any) -> tuple[Tensor, Logs]: ...


@dataclass(kw_only=True)
class Turn:
    """Common to both turns. `gan_views` names the views whose rows the head reads."""

    models: Models
    draws: Draws
    times: Mapping[str, TimeSampler]
    gan_views: frozenset[str]
    x: Tensor
    """The generated samples [B, ...]."""
    cond: Cond
    step: int = 0
    """The sampler's step that made the samples."""
    _views: dict[str, View] = field(default_factory=dict, init=False)
    _encodings: dict[tuple[str, str], Encoding] = field(default_factory=dict, init=False)

    def samples(self, name: str) -> dict[str, tuple[Tensor, Cond]]:
        """The clean rows of a view, real before fake; each part draws for itself, so that ranks can
        share a batch.
        """
        return {"fake": (self.x, self.cond)}

    def view(self, name: str) -> View:
        """The noised view called `name`: its times and noise are drawn once."""
        if name not in self._views:
            parts = [self._noised(name, part, *rows) for part, rows in self.samples(name).items()]
            self._views[name] = parts[0] if len(parts) == 1 else View.join(parts)
        return self._views[name]

    def _noised(self, name: str, part: str, x0: Tensor, cond: Cond) -> View:
        stream = f"{type(self).__name__}/{name}/{part}"
        schedule = self.models.teacher.schedule
        t = self.times[name](schedule, self.draws, f"{stream}/t", len(x0))
        noise = self.draws.normal(f"{stream}/noise", tuple(x0.shape))
        return View(schedule.add_noise(x0, noise, t), t, x0, cond)

    def rows_for(self, who: str, name: str) -> View:
        """The rows of a view that "teacher" or "critic" passes over."""
        return self.view(name)

    def encoding(self, who: str, name: str) -> Encoding:
        """The encoder's pass of "teacher" or "critic" over a view; the decoder is for generated
        samples alone.
        """
        if (who, name) not in self._encodings:
            view = self.rows_for(who, name)
            seen, num = (view.x_t, view.t, view.cond), len(self.x)
            models = self.models
            self._encodings[who, name] = (
                models.teacher.encode(*seen, num)
                if who == "teacher"
                else models.critic.encode(*seen, self.step, num)
            )
        return self._encodings[who, name]

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        """Accumulate the gradients of `scale` times the weighted terms; what there is to log."""
        raise NotImplementedError

    def logits(self, name: str) -> Tensor:
        """The head's logits [B, levels] on a view."""
        critic = self.models.critic
        assert critic.discriminator is not None and name in self.gan_views
        return critic.discriminator(self.encoding(critic.discriminator_features, name).features)


@dataclass(kw_only=True)
class GeneratorTurn(Turn):
    """Gradients flow to the generator's output and to nothing else; only what the head reads keeps
    a graph.

    `generated` [B + P, ...] has the generator's graph: the samples, then what it makes of P stored
    pairs, whose
    images are `pair_image` [P, ...]. Terms see a leaf in its place, so that a term's graph is freed
    before the
    generator's is walked, the critic's weights get no gradient, and every term's gradient at the
    sample is known.
    """

    generated: Tensor
    pair_image: Tensor | None

    def __post_init__(self) -> None:
        self.leaf = self.generated.detach().requires_grad_()
        self.x, self.paired = self.leaf.tensor_split([len(self.x)])

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        logs: Logs = {}
        gradients: dict[str, Tensor] = {}
        for i, (name, term) in enumerate(terms.items()):
            loss, extra = term(self)
            shared = i + 1 < len(terms)  # another term may read the same view's graph
            (gradient,) = torch.autograd.grad(term.weight * loss, self.leaf, retain_graph=shared)
            gradients[name] = gradient
            logs |= {
                f"loss_{name}": loss.detach(),
                **extra,
                f"sample_gradient_{name}": gradient.norm(),
            }
        self.generated.backward(scale * torch.stack(list(gradients.values())).sum(0))
        first, *others = gradients
        for name in others:
            logs[f"{name}_to_{first}"] = (
                logs[f"sample_gradient_{name}"] / logs[f"sample_gradient_{first}"]
            )
        return logs | {"sample_mean": self.x.detach().mean(), "sample_std": self.x.detach().std()}

    @torch.enable_grad()
    def view(self, name: str) -> View:
        return super().view(name)

    def encoding(self, who: str, name: str) -> Encoding:
        read = who == self.models.critic.discriminator_features and name in self.gan_views
        with torch.set_grad_enabled(read):
            return super().encoding(who, name)

    @torch.no_grad()
    def critic_x0(self, name: str) -> Tensor:
        """The fake score's clean data, without a graph."""
        return self.models.critic.denoiser.decode(self.encoding("critic", name).detach())

    @torch.no_grad()
    def teacher_x0(self, name: str, guidance: float) -> Tensor:
        """The real score's clean data, guided, without a graph."""
        view, models = self.view(name), self.models
        if guidance == 1.0:
            return models.teacher.decode(self.encoding("teacher", name).detach())
        null = models.conditioner.null(view.cond)
        return guided(models.teacher, view.x_t.detach(), view.t, view.cond, null, guidance)


@dataclass(kw_only=True)
class CriticTurn(Turn):
    """Trains critic and head on the generator turn's own samples, detached; real rows come first in
    GAN views.
    """

    real: Tensor | None
    real_cond: Cond

    def backward(self, terms: Mapping[str, Term], scale: float) -> Logs:
        logs: Logs = {}
        total = torch.zeros((), device=self.x.device)
        for name, term in terms.items():
            loss, extra = term(self)
            total = total + scale * term.weight * loss
            logs |= {f"loss_{name}": loss.detach(), **extra}
        total.backward()
        return logs

    def samples(self, name: str) -> dict[str, tuple[Tensor, Cond]]:
        if name not in self.gan_views:
            return super().samples(name)
        assert self.real is not None
        return {"real": (self.real, self.real_cond)} | super().samples(name)

    def rows_for(self, who: str, name: str) -> View:
        # With the head on the teacher, nobody reads what the critic makes of real samples.
        skips_real = who == "critic" and self.models.critic.discriminator_features == "teacher"
        return self.fake(name) if skips_real else self.view(name)

    def encoding(self, who: str, name: str) -> Encoding:
        with torch.set_grad_enabled(who == "critic"):
            return super().encoding(who, name)

    def fake(self, name: str) -> View:
        """The generated samples' rows of a view, which come last."""
        return self.view(name).last(len(self.x))

    def critic_x0(self, name: str) -> Tensor:
        """The fake score's clean data of the generated samples."""
        return self.models.critic.denoiser.decode(self.encoding("critic", name))
