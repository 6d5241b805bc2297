"""Which of the sampler's steps makes each row of a training batch, and how that is chosen."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dmd2.randomness import Draws


@dataclass(frozen=True)
class Steps:
    """The sampler's step that makes each row of a batch.

    index   Its number, int64 [B].
    t       Its time [B], which the network is told.
    next_t  The time of the step after it [B]; 0 after the last.
    """

    index: Tensor
    t: Tensor
    next_t: Tensor

    @classmethod
    def single(cls, num: int, device: torch.device | str = "cpu") -> "Steps":
        """`num` rows that one step makes from pure noise, or real ones: t = 1, and 0 after it."""
        index = torch.zeros(num, dtype=torch.long, device=device)
        return cls(index, torch.ones(num, device=device), torch.zeros(num, device=device))

    @classmethod
    def join(cls, *parts: "Steps") -> "Steps":
        """The rows of several, one after the other."""
        return cls(
            torch.cat([part.index for part in parts]),
            torch.cat([part.t for part in parts]),
            torch.cat([part.next_t for part in parts]),
        )

    def rows(self, rows: slice) -> "Steps":
        """Some of the rows."""
        return Steps(self.index[rows], self.t[rows], self.next_t[rows])

    @property
    def input_t(self) -> Tensor:
        """The time [B] whose noise the step's input has: 1 for the first, which gets pure noise."""
        return torch.where(self.index == 0, torch.ones_like(self.t), self.t)

    def __len__(self) -> int:
        return len(self.index)


class StepChoice(Protocol):
    """How the sampler's steps are divided among the rows of a training batch."""

    def __call__(self, draws: Draws, num_steps: int, num: int) -> list[int]:
        """The step of each of a device's `num` rows, below `num_steps`: on the host, which walks by
        them. They are the same on all ranks, which so make as many passes, and in all shares of the
        batch: of the draws, that is `step` alone.
        """


class DrawnStep:
    """One step for a whole batch, drawn uniformly and the same on all ranks (DMD2 section 4.5)."""

    def __call__(self, draws: Draws, num_steps: int, num: int) -> list[int]:
        """The drawn step, `num` times."""
        return [draws.step(num_steps)] * num


class EveryStep:
    """All steps in every batch: row i of a device's belongs to step i mod `num_steps`.

    An update's gradient is then the mean over the steps, and not that of one of them, also where
    the rows go through the networks one by one.
    """

    def __call__(self, draws: Draws, num_steps: int, num: int) -> list[int]:
        """0, 1, ..., num_steps - 1, 0, 1, ...; raises ValueError where `num` is no multiple."""
        # Any split of a batch among devices gives each row the same step.
        if num % num_steps:
            raise ValueError(
                f"a device has {num} samples of a batch, no multiple of the {num_steps} steps that "
                f"it is to hold; type e.g. data.batch_size={num - num % -num_steps} "
                "global_batch=null, or sampler.steps._target_=dmd2.diffusion.DrawnStep"
            )
        return [i % num_steps for i in range(num)]
