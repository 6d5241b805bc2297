"""The inputs of a turn: the networks that its loss terms evaluate, and noised views of samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner, join
from dmd2.diffusion.denoiser import Denoiser, last
from dmd2.nets.critic import Critic


# No nn.Module: the teacher must stay out of the training module's checkpoints and optimizers.
@dataclass(frozen=True)
class Models:
    """The networks that loss terms evaluate; the teacher, the real score, is frozen."""

    teacher: Denoiser
    critic: Critic
    conditioner: Conditioner


@dataclass(frozen=True)
class View:
    """Samples noised to drawn times: x_t [B, ...], t [B], the clean x0 and their condition."""

    x_t: Tensor
    t: Tensor
    x0: Tensor
    cond: Cond

    @classmethod
    def join(cls, views: Sequence["View"]) -> "View":
        """The rows of several views, one after the other."""
        # Real and generated rows go through an encoder as one batch: one pass in place of two.
        x_t, t, x0 = (
            torch.cat([getattr(view, name) for view in views]) for name in ("x_t", "t", "x0")
        )
        return cls(x_t, t, x0, join(*(view.cond for view in views)))

    def last(self, num: int) -> "View":
        """The last `num` rows: in a critic turn, the generated ones."""
        # Real rows come first everywhere, so the generated ones are at the end.
        x_t, t, x0 = (last(x, num) for x in (self.x_t, self.t, self.x0))
        return View(x_t, t, x0, {key: last(value, num) for key, value in self.cond.items()})
