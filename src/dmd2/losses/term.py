"""What a loss term is: one row of a loss file."""

from typing import Any, Protocol

from torch import Tensor

# Tensors on the device: the step reads none of them back, and logs are fetched every log_every.
Logs = dict[str, Tensor]


class Term(Protocol):
    """One row of the loss file: a weight, and (turn) -> (loss, what else to log)."""

    needs: frozenset[str]
    """Of "discriminator", "real", "pairs": what it reads beyond the samples."""
    decodes: frozenset[str]
    """Of "teacher", "critic": whose remembered pass over the view it reads x0 of."""

    # Read-only, so that a term may have a narrower type: a view that is never None.
    @property
    def weight(self) -> float:
        """What its loss is multiplied by."""

    @property
    def view(self) -> str | None:
        """The noised view that it reads; None for a term that reads the samples alone."""

    def __call__(self, turn: Any) -> tuple[Tensor, Logs]:
        """The unweighted loss [], and what else to log by name."""
