"""Networks for two-dimensional toys: a small MLP with the two halves of a U-Net, and the exact
denoiser of a Gaussian mixture.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction
from dmd2.diffusion.schedules import NoiseSchedule, expand


class MLP(nn.Module):
    """A residual MLP on vectors [B, dim], with `encode` and `decode` like the U-Nets of images.

    It reads random Fourier features of the vector (Tancik et al. 2020), without which it learns the
    edges of small modes slowly. The noise level, by cosines and sines, and the class scale and
    shift every block. A fresh network's output is one constant.
    """

    directions: Tensor
    frequencies: Tensor

    def __init__(
        self, dim: int = 2, width: int = 128, num_blocks: int = 4, label_dim: int = 0
    ) -> None:
        super().__init__()
        # The first are drawn, so they are saved; the second are a function of the width.
        self.register_buffer("directions", 0.5 * torch.randn(dim, width // 4))
        self.register_buffer("frequencies", torch.linspace(0.1, 6.0, width // 2), persistent=False)
        self.inner = nn.Linear(dim + width // 2, width)
        self.embed = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.embed_label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        self.enc = nn.ModuleList(Block(width) for _ in range(num_blocks // 2))
        self.dec = nn.ModuleList(Block(width) for _ in range(num_blocks - num_blocks // 2))
        self.outer = nn.Linear(width, dim)
        nn.init.zeros_(self.outer.weight)

    def encode(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None
    ) -> list[Tensor]:
        """x [B, dim], noise_labels [B] and one-hot class_labels [B, label_dim] to the hidden state
        and the embedding, each [B, width].
        """
        phase, angle = x @ self.directions, noise_labels[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin()], 1))
        if self.embed_label is not None:
            embedding = embedding + self.embed_label(class_labels)
        h = self.inner(torch.cat([x, phase.cos(), phase.sin()], 1))
        for block in self.enc:
            h = block(h, embedding)
        return [h, embedding]

    def decode(self, state: list[Tensor]) -> Tensor:
        """The raw output [B, dim] of a state, or of some of its rows."""
        h, embedding = state
        for block in self.dec:
            h = block(h, embedding)
        return self.outer(silu(h))

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None
    ) -> Tensor:
        """Both halves: the raw output [B, dim]."""
        return self.decode(self.encode(x, noise_labels, class_labels))


class Block(nn.Module):
    """h + W2 silu((1 + scale) W1 h + shift), scale and shift from the embedding; the identity when
    fresh.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Hidden state [B, width] and embedding [B, width] to the next hidden state [B, width]."""
        scale, shift = self.modulate(embedding).chunk(2, 1)
        return h + self.down(silu(torch.addcmul(shift, self.up(h), 1 + scale)))


class GaussianMixture(Denoiser):
    """The exact E[x0 | x_t] of an isotropic mixture sum_k w_k N(mean_k, std_k^2 I), without
    parameters: means [K, D], stds [K] and weights [K], which sum to one.
    """

    prediction: Prediction = "x0"
    halves = ()
    means: Tensor
    stds: Tensor
    weights: Tensor

    def __init__(
        self, schedule: NoiseSchedule, means: Tensor, stds: Tensor, weights: Tensor
    ) -> None:
        super().__init__(nn.Identity(), schedule)
        self.register_buffer("means", means)  # [K, D]
        self.register_buffer("stds", stds)  # [K]
        self.register_buffer("weights", weights)  # [K]

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """x_t [B, ...] and t [B] as they are: there is no encoder and no feature."""
        return Encoding(x_t, t, [], []).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        """E[x0 | x_t] [B, ...], the sum over k of p(k | x_t) E[x0 | x_t, k]."""
        x_t = encoding.x_t.flatten(1)
        alpha, sigma = (expand(c, x_t) for c in self.schedule.alpha_sigma(encoding.t))
        # Given k, x_t is N(alpha mean_k, variance_k I).
        variance = (alpha * self.stds) ** 2 + sigma**2  # [B, K]
        offset = x_t[:, None] - alpha[:, :, None] * self.means  # [B, K, D]
        dim = x_t.shape[1]
        # Bayes in logs, up to a constant that softmax takes out; the densities would underflow.
        log_density = -0.5 * (offset**2).sum(2) / variance - 0.5 * dim * variance.log()
        responsibility = (log_density + self.weights.log()).softmax(1)
        # Given k, x0 and x_t are jointly Gaussian with covariance alpha std_k^2.
        gain = alpha * self.stds**2 / variance
        x0 = (responsibility[:, :, None] * (self.means + gain[:, :, None] * offset)).sum(1)
        return x0.view_as(encoding.x_t)
