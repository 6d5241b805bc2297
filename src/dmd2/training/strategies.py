"""Lightning's strategy for ranks that each hold all weights: it places the module, and leaves
gradients to us.
"""

from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy


class ProcessEnvironment(LightningEnvironment):
    """The processes as whoever started them named them."""

    def teardown(self) -> None:
        """Keep WORLD_SIZE, which Lightning would delete: the next fit in this process is of the
        same ranks.
        """


class ReplicatedStrategy(DDPStrategy):
    """The module stays bare: `dmd2.distributed.gradients` sends the updated network's gradients,
    once an update.

    Lightning's wrapper expects every parameter in every backward, or sends them all.
    """

    def configure_ddp(self) -> None:
        """Wrap nothing."""

    def setup(self, trainer: L.Trainer) -> None:
        """Keep Lightning from broadcasting a flag in every iteration and reading it back from the
        device.

        `dmd2.training.callbacks.interrupt` agrees on signals at the reports.
        """
        super().setup(trainer)
        loop: Any = trainer.fit_loop.epoch_loop
        assert hasattr(loop, "_broadcast_sigterm_tensor"), (
            "lightning has changed; see whether it still broadcasts"
        )
        loop._broadcast_sigterm_tensor = lambda: None
