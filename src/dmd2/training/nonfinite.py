"""Watches numbers for NaN and infinity on the device: no host synchronisation until one asks."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from dmd2.distributed.rank_zero import warn


class NonFiniteGuard:
    """Remembers, for each watched name, the first iteration (from 1) whose number was not finite.

    allowed  Updates that may be skipped for it before `check` raises; skipped updates are named on
             stderr and counted.
    """

    def __init__(self, allowed: int = 0) -> None:
        if allowed < 0:
            raise ValueError(f"max_skipped_updates must be at least 0, got {allowed}")
        self.allowed = allowed
        self.skipped = torch.tensor(0)
        """Updates skipped so far, on the device."""
        self._first: dict[tuple[str, ...], Tensor] = {}

    def watch(self, numbers: dict[str, Tensor], iteration: int) -> Tensor:
        """Note the non-finite among `numbers`; a bool [] on the device: whether all are finite."""
        # Numbers that are watched together share one tensor, so a call is a few small kernels.
        names = tuple(numbers)
        bad = ~torch.stack([number.float() for number in numbers.values()]).isfinite()
        first = self._first.get(names, torch.zeros_like(bad, dtype=torch.long))
        # Only the first bad iteration is kept: what comes after follows from it.
        self._first[names] = torch.where(bad & (first == 0), iteration, first)
        # Stays on the device; `check` is the only one that reads it.
        self.skipped = self.skipped.to(bad.device) + bad.any()
        return ~bad.any()

    def check(self) -> None:
        """Name the earliest numbers that were not finite since the last call, on stderr.

        Raises FloatingPointError where more updates were skipped than are allowed. Reads the
        device.
        """
        found = [
            (iteration, name)
            for names, first in self._first.items()
            for name, iteration in zip(names, first.tolist(), strict=True)
            if iteration
        ]
        if found:
            iteration = min(found)[0]
            names = [name for at, name in found if at == iteration]
            line = f"iteration {iteration}: {', '.join(names)} not finite; the step was not applied"
            if self.allowed:
                line += f" ({int(self.skipped)} so far, max_skipped_updates={self.allowed})"
            if self.skipped > self.allowed:
                raise FloatingPointError(line)
            warn(line)
            # What was named once is not named again at the next report.
            self._first.clear()


def skip_step_unless(finite: Tensor, optimizer: Optimizer) -> None:
    """Let the next step change neither weights nor state where `finite` (bool []) is false.

    A fused optimizer reads that on the device; for any other the host waits for it.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    elif not finite:
        # Optimizers pass over weights without a gradient: no decay, no moment, no count.
        optimizer.zero_grad()
