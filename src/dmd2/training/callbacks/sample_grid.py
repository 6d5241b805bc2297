"""Sample grids at regular intervals: always the same noise and labels, so that pictures compare."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from dmd2.data import pixels
from dmd2.data.codec import Codec
from dmd2.distributed.fsdp import unsharded
from dmd2.distributed.rank_zero import on_rank_zero
from dmd2.evaluation.pictures import picture
from dmd2.evaluation.scoring import Evaluator
from dmd2.training.callbacks.run_logger import PICTURE, run_loggers
from dmd2.training.module import DMD

MAX_BY_STEP = 50
"""Samples of which the picture of sampling steps is made, at most."""


class SampleGrid(L.Callback):
    """Every `every` iterations and at the end a picture of the first weights.

    It goes to `folder` and to the loggers. At the end `folder`/steps.png shows what each sampling
    step makes, where there are several.

    num_samples  Samples a picture.
    autoencoder  Decodes latents for pictures, e.g. a tiny one; None is the data's own, which
                 scores always take.
    evaluator    What says which samples are shown, and how they are made.
    folder       Where pictures go.

    Raises ValueError where `autoencoder` decodes other samples than the data's, FileNotFoundError
    where its files are not there.
    """

    def __init__(
        self,
        every: int,
        num_samples: int,
        autoencoder: Codec | None = None,
        *,
        evaluator: Evaluator,
        folder: str,
    ) -> None:
        if min(every, num_samples) < 1:
            raise ValueError(
                "callbacks.samples wants every and num_samples of at least 1, "
                f"got {every}, {num_samples}"
            )
        self.every, self.num_samples, self.autoencoder = every, num_samples, autoencoder
        self.evaluator, self.folder = evaluator, Path(folder)
        if autoencoder is not None:
            self._check(autoencoder)

    def _check(self, autoencoder: Codec) -> None:
        try:
            autoencoder.require()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"callbacks.samples.autoencoder: {error}") from error
        if autoencoder.shape != (shape := self.evaluator.data.shape):
            raise ValueError(
                f"callbacks.samples.autoencoder decodes samples of {autoencoder.shape}, and the "
                f"data's are {shape}; type callbacks.samples.autoencoder=null"
            )

    def pixels_of(self, x0: Tensor) -> Tensor:
        """Images uint8 [B, ...] of samples x0 [B, ...] in model space.

        What decodes latents is back on the host afterwards.
        """
        data, own = self.evaluator.data, self.autoencoder
        images = data.to_pixels(x0) if own is None else pixels.to_pixels(own.decode(x0))
        (data if own is None else own).offload()
        return images

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Draw when it is time: on all ranks, which may each hold a shard; rank 0 keeps it."""
        # The end is always shown, also of a run that is shorter than the interval.
        if trainer.global_step % self.every and trainer.global_step < trainer.max_steps:
            return
        assert isinstance(pl_module, DMD)
        evaluator, rows = self.evaluator, range(self.num_samples)
        # The first weights: an average where there is one, else the raw ones.
        name, network = next(iter(pl_module.students().items()))
        size = evaluator.batch_size
        blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
        with unsharded(network):
            samples, sampling = evaluator.sample_set(pl_module.device), evaluator.sampling(network)
            encoded = evaluator.encoded(sampling, samples, blocks)
            x0 = torch.cat([evaluator.made(encoded, samples, block)[0] for block in blocks])
            if trainer.global_step >= trainer.max_steps and sampling.num_evaluations > 1:
                few = range(min(self.num_samples, size, MAX_BY_STEP))
                encoded = evaluator.encoded(sampling, samples, [few])
                with evaluator.in_dtype(pl_module.device):
                    steps = encoded.by_step(samples, few)
                on_rank_zero(partial(self._draw_steps, steps))
        on_rank_zero(partial(self._keep, trainer, name, x0))

    def _draw_steps(self, steps: dict[str, Tensor]) -> None:
        shown = {title: self.pixels_of(x0) for title, x0 in steps.items()}
        picture(shown, self.folder / "steps.png")

    def _keep(self, trainer: L.Trainer, name: str, x0: Tensor) -> None:
        path = self.folder / f"{trainer.global_step:08d}.png"
        picture({f"{name}, iteration {trainer.global_step}": self.pixels_of(x0)}, path)
        for logger in run_loggers(trainer.loggers):
            logger.log_picture(PICTURE, path, trainer.global_step)
