"""The equations on tensors: what the papers say each is, in closed form."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dmd2.diffusion.denoiser import Denoiser, Prediction
from dmd2.diffusion.preconditioning import EDM, UnscaledDenoiser
from dmd2.diffusion.schedules import VP, Flow, Karras, expand
from dmd2.losses import functional as F, weighting
from dmd2.nets.toy import MLP


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


def awake(network: nn.Module) -> nn.Module:
    """Move every parameter off its start, since a fresh MLP outputs zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


# Distribution matching


def test_no_gradient_where_scores_agree():
    x, score = torch.randn(4, 3, 2, 2, requires_grad=True), torch.randn(4, 3, 2, 2)
    gradient = F.score_difference(score, score) / F.normaliser(x.detach(), score, 1e-6)
    F.surrogate(x, F.scrub(gradient)[0]).backward()
    assert x.grad is not None and x.grad.abs().max() == 0


def test_descent_goes_towards_the_teacher_and_away_from_the_critic():
    x = torch.zeros(1, 2, requires_grad=True)
    gradient = F.score_difference(real=torch.tensor([[1.0, 0.0]]), fake=torch.tensor([[0.0, 1.0]]))
    F.surrogate(x, gradient).backward()
    assert x.grad is not None
    assert (-x.grad).sign().tolist() == [[1, -1]]  # down the gradient


def test_surrogate_s_gradient_is_the_gradient_over_the_number_of_entries():
    x, gradient = torch.randn(4, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 8, 8)
    loss = F.surrogate(x, gradient)
    loss.backward()
    torch.testing.assert_close(x.grad, gradient / x.numel(), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(loss, 0.5 * (gradient**2).mean())


def test_normaliser_is_each_sample_s_distance_to_the_teacher():
    x, real = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    expected = torch.stack([(x[i] - real[i]).abs().mean() for i in range(5)])
    found = F.normaliser(x, real, 1e-6)
    assert found.shape == (5, 1, 1, 1)
    torch.testing.assert_close(found.flatten(), expected)


def test_normaliser_has_a_floor():
    x = torch.randn(2, 4)
    assert F.normaliser(x, x, 0.25).tolist() == [[0.25], [0.25]]


def test_scale_of_the_data_does_not_matter():
    """Eq. 8 makes the gradient as large as the data is, whatever its unit."""
    x, real, fake = torch.randn(3, 4, 6).unbind()
    plain = F.score_difference(real, fake) / F.normaliser(x, real, 1e-6)
    scaled = F.score_difference(50 * real, 50 * fake) / F.normaliser(50 * x, 50 * real, 1e-6)
    torch.testing.assert_close(plain, scaled)


def test_scrub_zeroes_what_is_not_finite_and_counts_samples():
    gradient = torch.ones(5, 3)
    gradient[0, 1] = float("nan")
    gradient[2] = float("inf")
    gradient[3, 0] = -float("inf")
    clean, num_scrubbed = F.scrub(gradient)
    assert clean.tolist() == [[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]]
    assert num_scrubbed == 3
    assert F.scrub(clean)[1] == 0


# Denoising: which prediction's plain error each weight makes of the x0 error


def mean_squares(error: Tensor) -> Tensor:
    return (error**2).mean()


PREDICTIONS = {
    "eps": (VP.scaled_linear(0.00085, 0.012), "eps", weighting.eps),
    "eps_on_flow": (Flow(), "eps", weighting.eps),
    "v": (VP.scaled_linear(0.00085, 0.012), "v", weighting.flow),
    "flow": (Flow(shift=3.0), "flow", weighting.flow),
    "x0": (Flow(), "x0", weighting.x0),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_weight_makes_the_x0_error_the_error_of_the_prediction(name: str):
    schedule, prediction, weight = PREDICTIONS[name]
    denoiser = UnscaledDenoiser(awake(MLP(6, 16, 2)), schedule, prediction)
    x0, noise, t = torch.randn(32, 6), torch.randn(32, 6), 0.02 + 0.96 * torch.rand(32)
    x_t = schedule.add_noise(x0, noise, t)
    alpha, sigma = schedule.alpha_sigma(t)
    target = targets(prediction, x0, noise, alpha, sigma)
    direct = mean_squares(denoiser.predict(x_t, t, {}) - target)
    found = F.denoising(denoiser(x_t, t, {}), x0, weight(alpha, sigma))
    torch.testing.assert_close(found, direct, rtol=1e-4, atol=0)


def targets(
    prediction: Prediction, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    alpha, sigma = expand(alpha, x0), expand(sigma, x0)
    return {"x0": x0, "eps": noise, "v": alpha * noise - sigma * x0, "flow": noise - x0}[prediction]


def test_edm_weight_makes_the_x0_error_the_error_of_the_raw_network():
    """And so has unit weight on the target of F (Karras et al. 2022, Eq. 8)."""
    schedule, sigma_data = Karras(), 0.5
    model = awake(MLP(6, 16, 2))
    denoiser: Denoiser = EDM(model, schedule, sigma_data)
    x0, noise, t = 0.5 * torch.randn(64, 6), torch.randn(64, 6), torch.rand(64)
    x_t = schedule.add_noise(x0, noise, t)
    alpha, sigma = schedule.alpha_sigma(t)
    c = sigma[:, None].double()
    variance = c**2 + sigma_data**2
    raw = model((x_t / variance.sqrt()).float(), sigma.log() / 4).double()
    target = (x0 - sigma_data**2 / variance * x_t) * variance.sqrt() / (c * sigma_data)
    found = F.denoising(denoiser(x_t, t, {}), x0, weighting.edm(alpha, sigma, sigma_data))
    # At sigma_min the error of x0 is multiplied by 250,004, and float32's rounding with it.
    torch.testing.assert_close(found.double(), mean_squares(raw - target), rtol=1e-3, atol=0)


def test_edm_weight_has_the_published_range():
    alpha, sigma = Karras().alpha_sigma(torch.tensor([0.0, 1.0]))
    assert weighting.edm(alpha, sigma, 0.5).tolist() == pytest.approx([250_004, 4.0], rel=1e-4)


# GAN


def test_gan_losses_are_the_paper_s_logarithms():
    real, fake = torch.randn(64, 3), torch.randn(64, 3)
    torch.testing.assert_close(F.gan_generator(fake), -logsigmoid(fake))
    expected = -(logsigmoid(real).mean() + (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(F.gan_critic(real, fake), expected)


def test_gan_losses_of_an_undecided_discriminator():
    zeros = torch.zeros(4, 1)
    torch.testing.assert_close(F.gan_generator(zeros).mean(), torch.tensor(2.0).log())
    torch.testing.assert_close(F.gan_critic(zeros, zeros), 2 * torch.tensor(2.0).log())


def test_gan_losses_stay_finite_for_a_discriminator_that_is_sure():
    sure = torch.tensor([[1e4], [-1e4]])
    assert F.gan_generator(sure).isfinite().all() and F.gan_critic(sure, sure).isfinite()


def test_critic_s_gradient_raises_real_logits_and_lowers_fake_ones():
    real, fake = torch.zeros(2, 4, 1, requires_grad=True).unbind()
    gradient_real, gradient_fake = torch.autograd.grad(F.gan_critic(real, fake), [real, fake])
    assert (gradient_real < 0).all() and (gradient_fake > 0).all()


def test_accuracy():
    real, fake = F.accuracy(
        torch.tensor([[1.0], [2.0], [-1.0], [3.0]]), torch.tensor([[-1.0], [1.0]])
    )
    assert (real, fake) == (0.75, 0.5)


# Precision


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b, c: F.surrogate(a, F.score_difference(b, c) / F.normaliser(a, b, 1e-6)),
        lambda a, b, c: F.denoising(
            a, b, partial(weighting.edm, sigma_data=0.5)(c[:, 0].abs(), c[:, 1].abs())
        ),
        lambda a, b, c: F.gan_critic(a, b),
        lambda a, b, c: F.gan_generator(a),
    ],
    ids=["surrogate", "denoising", "gan_critic", "gan_generator"],
)
def test_losses_do_not_depend_on_autocast(loss):
    tensors = torch.randn(3, 8, 5).unbind()
    plain = loss(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(*tensors), plain)
