"""The inputs of a turn: the networks that its loss terms evaluate, and noised views of samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner, join
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.steps import Steps
from dmd2.nets.critic import Critic


# No nn.Module: the teacher must stay out of the training module's checkpoints and optimizers.
@dataclass(frozen=True)
class Models:
    """The networks that loss terms evaluate; the teacher, the real score, is frozen."""

    teacher: Denoiser
    critic: Critic
    conditioner: Conditioner

    def logits(self, view: "View") -> Tensor:
        """The discriminator's logits [B, levels] on a view's rows, by a pass of their own."""
        critic, rows = self.critic, (view.x_t, view.t, view.cond)
        assert critic.discriminator is not None  # a term's `needs` asked for it
        # Nothing is decoded: the discriminator reads the encoder's features.
        encoding = (
            self.teacher.encode(*rows, 0)
            if critic.discriminator_features == "teacher"
            else critic.encode(*rows, view.steps.index, 0)
        )
        logits: Tensor = critic.discriminator(encoding.features)
        return logits


@dataclass(frozen=True)
class View:
    """Samples noised to drawn times: x_t [B, ...], t [B], the clean x0, condition and steps."""

    x_t: Tensor
    t: Tensor
    x0: Tensor
    cond: Cond
    steps: Steps

    @classmethod
    def join(cls, views: Sequence["View"]) -> "View":
        """The rows of several views, one after the other."""
        # Real and generated rows go through an encoder as one batch: one pass in place of two.
        x_t, t, x0 = (
            torch.cat([getattr(view, name) for view in views]) for name in ("x_t", "t", "x0")
        )
        steps = Steps.join(*(view.steps for view in views))
        return cls(x_t, t, x0, join(*(view.cond for view in views)), steps)

    def rows(self, rows: slice) -> "View":
        """Some of the rows."""
        cond = {key: value[rows] for key, value in self.cond.items()}
        return View(self.x_t[rows], self.t[rows], self.x0[rows], cond, self.steps.rows(rows))

    def last(self, num: int) -> "View":
        """The last `num` rows: in a critic turn, the generated ones."""
        # Real rows come first everywhere, so the generated ones are at the end.
        return self.rows(slice(len(self.t) - num, None))
