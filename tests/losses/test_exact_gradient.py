"""The score difference is the gradient of KL(p_fake,t || p_real,t): exact Gaussian scores against
autograd.

The generator is x = A z + b, so that its distribution is Gaussian at every noise level, and at A =
s Q with Q orthogonal both scores are those of isotropic Gaussians, which `GaussianMixture` knows
exactly.
"""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from dmd2.diffusion.schedules import VP, Flow, Karras, NoiseSchedule
from dmd2.losses import functional as F
from dmd2.nets.toy import GaussianMixture

SCHEDULES = {"karras": Karras(), "vp": VP.scaled_linear(0.00085, 0.012), "flow": Flow(shift=3.0)}
REAL_MEAN, REAL_STD, FAKE_STD = torch.tensor([0.8, -0.3]), 0.6, 0.9
ANGLE = torch.tensor(0.7)
Q = torch.stack([torch.stack([ANGLE.cos(), -ANGLE.sin()]), torch.stack([ANGLE.sin(), ANGLE.cos()])])


def parameters() -> tuple[Tensor, Tensor]:
    """A and b of the generator."""
    return (FAKE_STD * Q).requires_grad_(), torch.tensor([-0.4, 0.5], requires_grad=True)


def exact(schedule: NoiseSchedule, t: float) -> Tensor:
    """Gradient of the closed form of KL(p_fake,t || p_real,t) in A and b, flattened."""
    A, b = parameters()
    alpha, sigma = (float(c) for c in schedule.alpha_sigma(torch.tensor([t])))
    eye = torch.eye(2)
    fake = MultivariateNormal(alpha * b, alpha**2 * A @ A.T + sigma**2 * eye)
    real = MultivariateNormal(alpha * REAL_MEAN, (alpha**2 * REAL_STD**2 + sigma**2) * eye)
    gradients = torch.autograd.grad(kl_divergence(fake, real), [A, b])
    return torch.cat([g.flatten() for g in gradients])


def estimated(schedule: NoiseSchedule, t: float, num: int = 200_000) -> Tensor:
    """The mean of DMD's estimator under the exact weight, alpha^2 / sigma^2, in the place of Eq.
    8's.
    """
    A, b = parameters()
    draw = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, num, 2, generator=draw).unbind()
    x = z @ A.T + b
    times = torch.full((num,), t)
    x_t = schedule.add_noise(x.detach(), noise, times)
    real, fake = (
        GaussianMixture(schedule, mean[None], torch.tensor([std]), torch.ones(1))(x_t, times, {})
        for mean, std in ((REAL_MEAN, REAL_STD), (b.detach(), FAKE_STD))
    )
    alpha, sigma = schedule.alpha_sigma(times)
    weight = (alpha / sigma).square()[:, None]
    # The surrogate is a mean over B times D entries, KL's estimator one over B samples.
    (x.shape[1] * F.surrogate(x, weight * F.score_difference(real, fake))).backward()
    return torch.cat([A.grad.flatten(), b.grad.flatten()])


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_mean_of_the_estimator_is_the_gradient_of_the_divergence(family: str, t: float):
    found, expected = estimated(SCHEDULES[family], t), exact(SCHEDULES[family], t)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.999
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.02)
