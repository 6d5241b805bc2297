"""A teacher learns from data, and its average is what counts."""

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from dmd2.data.toy import Toy2D
from dmd2.diffusion.conditioning import ClassLabels
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.schedules import Karras
from dmd2.diffusion.steps import Steps
from dmd2.diffusion.training_times import LogNormalSigma
from dmd2.losses import functional as F, weighting
from dmd2.nets.toy import MLP, GaussianMixture
from dmd2.randomness import Draws, seeded
from dmd2.training.pretrain import Pretrain
from test_module import trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"
)
TIMES, WEIGHT = LogNormalSigma(-0.8, 1.3), partial(weighting.edm, sigma_data=1.0)
CONDITIONER = ClassLabels(2)


def denoiser() -> EDM:
    with seeded(0, "pretrain"):
        return EDM(MLP(2, 32, 2, label_dim=2), Karras(), sigma_data=1.0)


def pretrain(lr: float = 3e-3, **options: Any) -> Pretrain:
    optimizer = partial(AdamW, lr=lr, fused=True)
    return Pretrain(denoiser(), CONDITIONER, TIMES, WEIGHT, optimizer, lambda _: 1.0, **options)


def fit(
    module: Pretrain, max_steps: int, data: Toy2D | None = None, *callbacks: L.Callback
) -> Pretrain:
    trainer(max_steps, *callbacks).fit(
        module,
        datamodule=data or Toy2D(name="ring", num_train=512, num_test=512, batch_size=64, seed=0),
    )
    return module


@torch.no_grad()
def excess_loss(network: Denoiser) -> float:
    """How much more the loss on held-out points is than that of the exact denoiser of the ring."""
    data, schedule = (
        Toy2D(name="ring", num_train=8, num_test=2048, batch_size=8, seed=0),
        network.schedule,
    )
    data.setup()
    modes, std = torch.as_tensor(data.modes).float(), torch.full((8,), data.mode_std)
    x0 = torch.as_tensor(data.test.x)
    t = TIMES(schedule, Draws(9, 0), "t", Steps.single(len(x0)))
    x_t = schedule.add_noise(x0, Draws(9, 0).normal("noise", tuple(x0.shape)), t)
    cond, weight = CONDITIONER(torch.zeros(len(x0)).long()), WEIGHT(*schedule.alpha_sigma(t))
    exact = GaussianMixture(schedule, modes, std, torch.full((8,), 1 / 8))
    return float(
        F.denoising(network(x_t, t, cond), x0, weight)
        - F.denoising(exact(x_t, t, cond), x0, weight)
    )


def test_it_learns():
    fresh = excess_loss(denoiser())
    assert 0 < excess_loss(fit(pretrain(ema=0.98), 400).trained()) < 0.5 * fresh


def test_the_teacher_is_the_average_where_there_is_one_and_frozen():
    averaged, raw = fit(pretrain(ema=0.5), 3), fit(pretrain(), 3)
    assert averaged.trained() is averaged.ema.models[0] and raw.trained() is raw.denoiser
    for network in (averaged.trained(), raw.trained()):
        assert not network.training and not any(p.requires_grad for p in network.parameters())


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


class Seen(L.Callback):
    """The weights after each iteration."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Pretrain, *_: Any) -> None:
        self.values.append(weights(pl_module.denoiser))


class Poisoned(Toy2D):
    """Batch 3 holds an infinity."""

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if batch["index"] == 3:
            batch["real"][1, 1] = float("inf")
        return batch


def test_a_bad_batch_is_skipped_and_reported():
    data, seen = Poisoned(name="ring", num_train=512, num_test=64, batch_size=64, seed=0), Seen()
    with pytest.raises(FloatingPointError, match="iteration 4: pretrain/loss"):
        fit(pretrain(log_every=6), 20, data, seen)
    assert torch.equal(seen.values[2], seen.values[3])
    assert not torch.equal(seen.values[3], seen.values[4])


def shares_dropped(dropout: float) -> float:
    """The share of rows without a class that the network reads."""
    module, shares = pretrain(condition_dropout=dropout), []

    def read(_m: Any, args: tuple[Tensor, ...]) -> None:
        shares.append(float((args[0].sum(1) == 0).float().mean()))

    assert module.denoiser.model.embed_label is not None
    module.denoiser.model.embed_label.register_forward_pre_hook(read)
    fit(module, 40)
    return sum(shares) / len(shares)


def test_conditions_are_dropped_as_often_as_asked():
    assert shares_dropped(0.0) == 0
    assert shares_dropped(0.25) == pytest.approx(0.25, abs=0.04)  # 2560 rows


def test_the_seed_is_the_run():
    runs = [weights(fit(pretrain(seed=seed), 3).denoiser) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
