"""Watches numbers for NaN and infinity on the device, without a host synchronisation until somebody
asks.
"""

import sys

import torch
from torch import Tensor

from dmd2.distributed.process_group import rank


class NonFiniteGuard:
    """Remembers, for each watched name, the first iteration (from 1) whose number was not finite.

    allowed  Updates that may be skipped for it before `check` raises; they are said on stderr and
             counted.
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
        names = tuple(numbers)
        bad = ~torch.stack([number.float() for number in numbers.values()]).isfinite()
        first = self._first.get(names, torch.zeros_like(bad, dtype=torch.long))
        self._first[names] = torch.where(bad & (first == 0), iteration, first)
        self.skipped = self.skipped.to(bad.device) + bad.any()
        return ~bad.any()

    def check(self) -> None:
        """Name the earliest new fault, if there is one; raise FloatingPointError if it is one too
        many.

        Reads the device.
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
            said = f"iteration {iteration}: {', '.join(names)} not finite; the step was not applied"
            if self.allowed:
                said += f" ({int(self.skipped)} so far, max_skipped_updates={self.allowed})"
            if self.skipped > self.allowed:
                raise FloatingPointError(said)
            if rank() == 0:
                print(f"dmd2: {said}", file=sys.stderr)
            self._first.clear()
