"""Trains a teacher from data: denoising score matching with the losses of distillation."""

from collections.abc import Callable

from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dmd2.diffusion.conditioning import Conditioner, drop, sending
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import TimeSampler
from dmd2.losses.functional import denoising
from dmd2.losses.weighting import Weighting
from dmd2.randomness import Draws
from dmd2.training.ema import EMA
from dmd2.training.manual_optimization import ManualOptimization


class Pretrain(ManualOptimization):
    """Denoising score matching (Karras et al. 2022, Eq. 2), with condition dropout for guidance.

    denoiser             The network; it is trained in place.
    conditioner          Labels to its condition.
    times                Distribution of training times.
    weighting            Of the squared x0 error at each noise level.
    optimizer            What makes the optimizer from weights.
    lr_factor            The learning rate's factor at an iteration.
    condition_dropout    Share of samples that see the unconditional twin of their condition
                         (classifier-free guidance, Ho & Salimans 2022).
    max_grad_norm        Global L2 norm to which the gradient is clipped.
    ema                  Decay of the average that becomes the teacher; None takes the weights.
    log_every            Iterations between reports.
    seed                 Of all that is drawn.
    max_skipped_updates  Updates that may be skipped for a number that is not finite.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        times: TimeSampler,
        weighting: Weighting,
        optimizer: Callable[..., Optimizer],
        lr_factor: Callable[[int], float],
        condition_dropout: float = 0.0,
        max_grad_norm: float = 1.0,
        ema: float | None = None,
        log_every: int = 50,
        seed: int = 0,
        max_skipped_updates: int = 0,
    ) -> None:
        super().__init__(max_grad_norm, log_every, max_skipped_updates)
        self.denoiser, self.conditioner = denoiser.train(), conditioner
        self.times, self.weighting = times, weighting
        self.make_optimizer, self.lr_factor = optimizer, lr_factor
        self.condition_dropout, self.seed = condition_dropout, seed
        self.ema = EMA(denoiser, () if ema is None else (ema,))

    def trained(self) -> Denoiser:
        """The teacher: the average where there is one, else the weights themselves; frozen."""
        networks = [*self.ema.models, self.denoiser]
        return networks[0].requires_grad_(False).eval()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """One step on clean data x0 [B, ...] of the batch."""
        x0, cond = batch["real"], sending(self.conditioner, self.device)(batch["label"])
        draws = Draws(
            self.seed, self.iteration, self.global_rank, self.trainer.world_size, self.device
        )
        # The teacher has to know the unconditional case too, which guidance leads away from.
        if self.condition_dropout:
            dropped = draws.uniform("pretrain/drop", len(x0)) < self.condition_dropout
            cond = drop(cond, self.conditioner.null(cond), dropped)
        schedule = self.denoiser.schedule
        # EDM Eq. 2: E |D(x0 + noise) - x0|^2, weighted by the noise level.
        t = self.times(schedule, draws, "pretrain/t", Steps.single(len(x0), self.device))
        x_t = schedule.add_noise(x0, draws.normal("pretrain/noise", tuple(x0.shape)), t)
        loss = denoising(self.denoiser(x_t, t, cond), x0, self.weighting(*schedule.alpha_sigma(t)))

        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)

        def backward() -> dict[str, Tensor]:
            self.manual_backward(loss)
            return {"pretrain/loss": loss.detach()}

        numbers = self.mean_gradients(self.denoiser, [backward], 1)
        logs = self.update(optimizer, self.denoiser, numbers, "pretrain")
        self.advance()
        # After the step, so that the average has seen this iteration's weights.
        self.ema.update(self.denoiser)
        if self.iteration % self.log_every == 0:
            self.report(logs)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """One optimizer and its learning-rate factor by iteration."""
        optimizer = self.make_optimizer(self.denoiser.parameters())
        return [optimizer], [LambdaLR(optimizer, self.lr_factor)]
