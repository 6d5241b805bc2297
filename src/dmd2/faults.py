"""Watches numbers for NaN and infinity on the device, without a host synchronisation until somebody asks."""

import torch
from torch import Tensor


class Faults:
    """Remembers, for each watched name, the first iteration (from 1) whose number was not finite."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Tensor] = {}

    def watch(self, numbers: dict[str, Tensor], iteration: int) -> Tensor:
        """Note the non-finite among `numbers`; a bool [] on the device: whether all are finite."""
        names = tuple(numbers)
        bad = ~torch.stack([number.float() for number in numbers.values()]).isfinite()
        first = self._first.get(names, torch.zeros_like(bad, dtype=torch.long))
        self._first[names] = torch.where(bad & (first == 0), iteration, first)
        return ~bad.any()

    def check(self) -> None:
        """Raise FloatingPointError that names the earliest fault, if there was one; reads the device."""
        found = [
            (iteration, name)
            for names, first in self._first.items()
            for name, iteration in zip(names, first.tolist(), strict=True)
            if iteration
        ]
        if found:
            iteration = min(found)[0]
            names = [name for at, name in found if at == iteration]
            raise FloatingPointError(
                f"iteration {iteration}: {', '.join(names)} not finite; the step was not applied"
            )
