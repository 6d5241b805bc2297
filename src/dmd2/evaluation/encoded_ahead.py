"""Conditions that are encoded before the samples are made, so that no text encoder is on the GPU
beside the networks that make them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.distributed.device import lent, sent

NUM_AHEAD = 128
"""Samples whose conditions are kept on the host: 80 MB of SDXL's, 1.9 GB of Qwen-Image's."""


class EncodedAhead(Conditioner):
    """The conditions of some batches, on the host until they are asked for.

    conditioner  What encodes: on `device` while it does, and then back where it was.
    batches      Labels int64 [B] on `device`, each of a batch.
    device       Where conditions go.
    """

    def __init__(
        self, conditioner: Conditioner, batches: Iterable[Tensor], device: torch.device
    ) -> None:
        super().__init__()
        self.num_classes, self.device = conditioner.num_classes, device
        # In a tuple it is no submodule: it stays where it is.
        self.encoding = (conditioner,)
        # A batch as one: what an encoder computes is rounded by the size of its batch.
        with lent(conditioner, device), torch.no_grad():
            self.known = {
                tuple(labels.tolist()): {name: x.cpu() for name, x in conditioner(labels).items()}
                for labels in batches
            }

    def forward(self, labels: Tensor) -> Cond:
        """The condition of one of the batches; raises KeyError for other labels."""
        return self.sent(self.known[tuple(labels.tolist())])

    def null(self, cond: Cond) -> Cond:
        """As of `Conditioner`."""
        return self.sent(self.encoding[0].null(cond))

    def sent(self, cond: Cond) -> Cond:
        """A condition on the device."""
        return {name: sent(x, self.device) for name, x in cond.items()}
