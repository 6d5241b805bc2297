"""Implicit distribution alignment (SenseFlow, arXiv:2506.00523): critic follows generator."""

from typing import Any

import lightning as L
import torch

from dmd2.training.module import DMD


class ImplicitAlignment(L.Callback):
    """After a generator update, moves the critic's denoiser towards the generator's weights.

    psi <- decay psi + (1 - decay) theta, of all weights that are trained: the critic stays near
    what the generator has become, with fewer updates of its own. Both must be of one architecture;
    LoRA's weights are averaged as they are.

    decay  lambda, near 1. Raises ValueError outside of 0 to 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}; type e.g. 0.99")
        self.decay = decay

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move the critic, if the iteration before updated the generator."""
        assert isinstance(pl_module, DMD)
        # At the start of the next iteration: a checkpoint between both resumes to the same.
        if pl_module.iteration == 0 or not pl_module.updates_generator(pl_module.iteration - 1):
            return
        networks = pl_module.critic.denoiser, pl_module.generator
        for psi, theta in zip(*(network.parameters() for network in networks), strict=True):
            if psi.requires_grad:
                psi.lerp_(theta, 1 - self.decay)
