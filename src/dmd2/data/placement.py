"""Where batches go: to which process of those that share a global batch, and to which device."""

from typing import Any

import torch
from lightning import LightningDataModule

LABELS = ("label", "pair_label")
"""What of a batch stays on the host: conditioners read rows of tables there."""


class PlacedData(LightningDataModule):
    """Base of data modules: the process's place among others, and what its device gets."""

    @property
    def rank(self) -> int:
        """Number of this process among those that share a global batch; 0 without a trainer."""
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def world_size(self) -> int:
        """How many processes share a global batch; 1 without a trainer."""
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def on_gpu(self) -> bool:
        """Whether batches go to a GPU; they then wait in pinned memory, which copies faster."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Send all of a batch but its labels; Lightning calls it."""
        kept = {key: batch[key] for key in LABELS if key in batch}
        rest = {key: value for key, value in batch.items() if key not in kept}
        moved: dict[str, Any] = super().transfer_batch_to_device(rest, device, dataloader_idx)
        return kept | moved
