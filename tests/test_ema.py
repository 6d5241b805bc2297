"""Averages of weights: in float32, of the weights alone."""

import pytest
import torch
from torch import nn

from dmd2.diffusion.preconditioning import UnscaledDenoiser
from dmd2.diffusion.schedules import VP
from dmd2.nets.toy import MLP
from dmd2.training.ema import EMA


def test_one_update_moves_by_one_minus_the_decay():
    model = nn.Linear(3, 2)
    ema, before = EMA(model, [0.9, 0.99]), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    ema.update(model)
    for moved, (name, mean) in zip((0.1, 0.01), ema.named().items(), strict=True):
        torch.testing.assert_close(mean.weight, before + moved)
        assert name in ("ema_0.9", "ema_0.99")


def test_average_of_a_bf16_network_moves():
    """In bf16, 0.9999 times a weight rounds back to it."""
    model = nn.Linear(8, 8).bfloat16()
    ema = EMA(model, [0.9999])
    before = ema.models[0].weight.clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    ema.update(model)
    assert before.dtype == torch.float32
    torch.testing.assert_close(
        ema.models[0].weight - before, 1e-4 * (model.weight.float() - before), rtol=1e-3, atol=1e-7
    )


def test_average_keeps_the_schedule_s_precision():
    model = UnscaledDenoiser(MLP(2, 16, 2), VP.scaled_linear(0.00085, 0.012), "eps")
    (mean,) = EMA(model, [0.9]).models
    assert mean.schedule.alphas_cumprod.dtype == torch.float64
    t = torch.rand(50)
    assert all(
        torch.equal(a, b)
        for a, b in zip(mean.schedule.alpha_sigma(t), model.schedule.alpha_sigma(t), strict=True)
    )


def test_averages_are_frozen_and_leave_the_network_alone():
    model = nn.Linear(3, 2)
    ema = EMA(model, [0.9])
    assert not any(p.requires_grad for p in ema.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in ema.models)


def test_no_decay_is_no_average():
    ema = EMA(nn.Linear(3, 2), ())
    ema.update(nn.Linear(3, 2))
    assert ema.named() == {} and not ema.state_dict()


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_decays_out_of_range_are_refused(decay):
    with pytest.raises(
        ValueError, match=r"an EMA decay lies between 0 and 1, got .* e\.g\. ema=\[0\.999\]"
    ):
        EMA(nn.Linear(1, 1), [decay])
