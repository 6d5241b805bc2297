"""Equations on tensors: those of DMD (Yin et al., CVPR 2024) and DMD2 (Yin et al., NeurIPS 2024),
and of later methods, each named where it stands.

No network is called here. All is float32 and in terms of clean data: `real` and `fake` are the x0
predictions of the teacher (real score) and of the critic (fake score). The distribution matching
loss is `surrogate(x, scrub(score_difference(real, fake) / normaliser(x, real, floor))[0])`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, relu, softplus


def per_sample_mean(x: Tensor) -> Tensor:
    """Mean over all but the first dimension, which are kept as 1: [B, ...] -> [B, 1, ...]."""
    return x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))


def score_difference(real: Tensor, fake: Tensor) -> Tensor:
    """Direction of DMD Eq. 7 for clean-data predictions [B, ...], without a weight.

    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> gradient = score_difference(real=torch.ones(1, 2), fake=torch.zeros(1, 2))
    >>> surrogate(x, gradient).backward()
    >>> -x.grad  # descent goes towards the teacher's prediction
    tensor([[0.5000, 0.5000]])
    """
    # DMD Eq. 7: s_fake - s_real, which for s = -(x_t - alpha mu) / sigma^2 is
    # (alpha / sigma^2) (mu_fake - mu_real). The factor goes into the weight of Eq. 8.
    return fake - real


def normaliser(x: Tensor, real: Tensor, floor: float) -> Tensor:
    """Denominator of DMD's weight (DMD Eq. 8): mean |x - real| of each sample, [B, 1, ...].

    It is at least `floor`.
    """
    # DMD Eq. 8: w_t = (sigma_t^2 / alpha_t) C S / ||mu_real(x_t, t) - x||_1. With it sigma cancels.
    # The authors have no floor: where the teacher agrees with x, their gradient is not finite.
    return per_sample_mean((x - real).abs()).clamp_min(floor)


def score_cosine(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Cosine [B] of the teacher's and the critic's correction, real - x and fake - x, of samples x.

    >>> x = torch.zeros(1, 2)
    >>> score_cosine(x, real=torch.ones(1, 2), fake=torch.full((1, 2), 3.0))
    tensor([1.])
    """
    return cosine_similarity((real - x).flatten(1), (fake - x).flatten(1))


def scrub(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Replace non-finite entries by zero; also the number of samples [] that had one."""
    num_scrubbed = (~gradient.isfinite()).flatten(1).any(1).sum()
    # nan_to_num's own default would turn an infinity into 3e38.
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0), num_scrubbed


def leave_out(x: Tensor, rows: Tensor) -> None:
    """Make the gradient that goes on at x [B, ...] zero in these rows [B], finite there or not."""
    bad = rows.view(-1, *[1] * (x.ndim - 1))
    x.register_hook(lambda gradient: gradient.masked_fill(bad, 0.0))


def surrogate(x: Tensor, gradient: Tensor) -> Tensor:
    """A loss [] whose gradient at x [B, ...] is gradient / x.numel() (DMD Algorithm 2)."""
    # DMD Algorithm 2: 1/2 MSE(x, sg[x - g]). Its value, mean g^2 / 2, measures no progress.
    return 0.5 * ((x - (x - gradient).detach()) ** 2).mean()


def score_identity(x: Tensor, real: Tensor, fake: Tensor, alpha: float, floor: float) -> Tensor:
    """SiD's loss [] (arXiv:2404.04057) of predictions [B, ...] with graphs to x [B, ...].

    (real - fake) ((real - x) - alpha (real - fake)) / mean |x - real|, a mean over all entries, of
    which those that are not finite count as 0.
    """
    difference = real - fake
    loss = difference * (real - x - alpha * difference)
    return scrub(loss / normaliser(x, real, floor).detach())[0].mean()


def denoising(x0_hat: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
    """Weighted denoising error [] (DMD Eq. 6) of x0_hat [B, ...], weights [B] from `weighting`."""
    # DMD Eq. 6: lambda_t ||mu_fake(x_t, t) - x0||^2, here a mean over all entries.
    return (weight.view(-1, *[1] * (x0.ndim - 1)) * (x0_hat - x0) ** 2).mean()


def gan_generator(fake_logits: Tensor) -> Tensor:
    """Non-saturating GAN loss of the generator, -log sigmoid(D(fake)) (DMD2 Eq. 4), of each of the
    logits [B, levels].
    """
    # softplus(-z) = -log sigmoid(z), and does not overflow. Its mean is one over samples and not
    # over pixels as the surrogate's: a GAN weight belongs to a number of dimensions.
    return softplus(-fake_logits)


def gan_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss [] of the discriminator on logits [B, levels] of each kind (DMD2 Eq. 4)."""
    # -log sigmoid(D(real)) - log(1 - sigmoid(D(fake))).
    return softplus(fake_logits).mean() + softplus(-real_logits).mean()


def hinge_generator(fake_logits: Tensor) -> Tensor:
    """The generator's half of the hinge GAN (Lim & Ye 2017): -D(fake), of each of the logits
    [B, levels].
    """
    return -fake_logits


def hinge_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss [] of the discriminator: max(0, 1 - D(real)) + max(0, 1 + D(fake)).

    It is content with logits [B, levels] beyond 1 and -1 (Lim & Ye 2017).
    """
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def relativistic_generator(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Relativistic GAN loss of the generator, -log sigmoid(D(fake) - D(real)).

    It compares pairs (Jolicoeur-Martineau 2018, arXiv:1807.00734). Each of the fake logits
    [B, levels] has the mean over all real ones [R, levels], and not that of a drawn one.
    """
    return softplus(real_logits - fake_logits[:, None]).mean(1)


def relativistic_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Relativistic loss [] of the discriminator, -log sigmoid(D(real) - D(fake)) over all pairs.

    At its least D is log p_real / p_fake up to a constant, which the loss does not see.
    """
    return softplus(fake_logits - real_logits[:, None]).mean()


def gaussian_mmd2(x: Tensor, y: Tensor, scales: Sequence[float]) -> Tensor:
    """Unbiased squared MMD [] of x [N, D] and y [M, D] (Gretton et al. 2012, Eq. 3).

    The kernel is the mean over `scales` s of exp(-|a - b|^2 / (2 s^2)).
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        # Not cdist, whose gradient is not finite where a = b.
        squares = (a[:, None] - b).square().sum(2)
        return torch.stack([torch.exp(-squares / (2 * s**2)) for s in scales]).mean(0)

    # Over i != j only, where k(a_i, a_i) = 1 would bias the estimate.
    def mean_of_pairs(a: Tensor) -> Tensor:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    # MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y).
    return mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean()


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Shares [] of real and of fake samples that the discriminator classifies correctly."""
    return (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()
