"""Implicit distribution alignment (SenseFlow, arXiv:2506.00523): critic follows generator."""

from typing import Any

import lightning as L
import torch

from dmd2.training.module import DMD


def check_alignment(module: DMD) -> None:
    """Raise ValueError where weights of generator and critic are not of the same shapes."""
    networks = module.critic.denoiser, module.generator
    psi, theta = ([p.shape for p in network.parameters()] for network in networks)
    if psi != theta:
        raise ValueError(
            "alignment moves each weight of the critic towards the generator's, and they "
            "differ in shape; type lora=both of one rank, lora=none, or callbacks=default"
        )


class ImplicitAlignment(L.Callback):
    """After an iteration that updated the generator, moves the critic towards its weights.

    psi <- decay psi + (1 - decay) theta, of all weights of the critic's denoiser that are trained:
    the critic stays near what the generator has become, with fewer updates of its own. SenseFlow
    does it right after the generator's update; here the critic's update of the same iteration comes
    between, and the last iteration of a run is followed by none. LoRA's weights are averaged as
    they are.

    decay  lambda, below 1 and near it. Raises ValueError for one that is not from 0 to below 1.

    Training raises what `check_alignment` does.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay must be at least 0 and below 1, got {decay}; type e.g. "
                "callbacks.alignment.decay=0.99, or callbacks=default for no alignment"
            )
        self.decay = decay

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse networks whose weights have no partners."""
        assert isinstance(pl_module, DMD)
        check_alignment(pl_module)

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move the critic, if the iteration before updated the generator."""
        assert isinstance(pl_module, DMD)
        # At the start of the next iteration: a checkpoint between both resumes to the same.
        if not pl_module.updates_generator(pl_module.iteration - 1):
            return
        networks = pl_module.critic.denoiser, pl_module.generator
        for psi, theta in zip(*(network.parameters() for network in networks), strict=True):
            if psi.requires_grad:
                psi.lerp_(theta, 1 - self.decay)
