"""Sample grids at regular intervals: always the same noise and labels, so that pictures compare."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from dmd2.data import pixels
from dmd2.data.codec import Codec
from dmd2.distributed.fsdp import unsharded
from dmd2.evaluation.pictures import picture
from dmd2.evaluation.scoring import Scoring
from dmd2.training.module import DMD


class SampleGrid(L.Callback):
    """Every `every` iterations a picture of the first weights in `samples/`, and to wandb where it
    logs.

    `autoencoder` decodes latents for it, e.g. a tiny one; None is the data's own, which scores
    always take.
    """

    def __init__(self, every: int, num_samples: int, autoencoder: Codec | None = None) -> None:
        if min(every, num_samples) < 1:
            raise ValueError(
                f"callbacks.samples wants every and num_samples of at least 1, got {every}, "
                f"{num_samples}"
            )
        self.every, self.num_samples, self.autoencoder = every, num_samples, autoencoder
        if isinstance(autoencoder, str):
            raise ValueError(
                f"callbacks.samples.autoencoder={autoencoder} is a name; type a node, e.g. "
                f"callbacks.samples.autoencoder={{_target_:dmd2.nets.autoencoder.TinyVAE,source:{autoencoder},resolution:512}}"
            )
        if autoencoder is not None:
            try:
                autoencoder.require()
            except FileNotFoundError as error:
                raise FileNotFoundError(f"callbacks.samples.autoencoder: {error}") from error

    def attach(self, scoring: Scoring, folder: Path) -> None:
        """Take what makes numbered samples, and where pictures go.

        Raises ValueError where `autoencoder` decodes other samples than the data's.
        """
        self.scoring, self.folder = scoring, folder
        if self.autoencoder is not None and self.autoencoder.shape != scoring.data.shape:
            raise ValueError(
                f"callbacks.samples.autoencoder decodes samples of {self.autoencoder.shape}, and "
                "the data's are "
                f"{scoring.data.shape}; type callbacks.samples.autoencoder=null"
            )

    def pixels_of(self, x0: Tensor) -> Tensor:
        """Images uint8 [B, ...] of samples."""
        if self.autoencoder is None:
            return self.scoring.data.to_pixels(x0)
        return pixels.to_pixels(self.autoencoder.decode(x0))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw when it is time, on all ranks, which may each hold a part of the weights; rank 0
        keeps it.
        """
        if trainer.global_step % self.every:
            return
        assert isinstance(pl_module, DMD)
        name, network = next(iter(pl_module.students().items()))
        maker = self.scoring.student_maker(network)
        with unsharded(network):
            numbered, rows = self.scoring.numbered(pl_module.device), range(self.num_samples)
            x0 = torch.cat([x0 for x0, _ in numbered.batches(maker, rows, self.scoring.batch_size)])
        if not trainer.is_global_zero:
            return
        path = self.folder / f"{trainer.global_step:08d}.png"
        picture({f"{name}, iteration {trainer.global_step}": self.pixels_of(x0)}, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples/grid", [str(path)], step=trainer.global_step)
