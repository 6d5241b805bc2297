"""Networks for two-dimensional toys: a small MLP in two halves, and the exact denoiser of a Gaussian mixture."""

import torch
from torch import Tensor, nn

from dmd2.conditioning import Cond
from dmd2.nets.denoiser import Denoiser, Encoding, Prediction
from dmd2.schedules import NoiseSchedule, expand


class MLP(nn.Module):
    """A residual MLP on vectors [B, dim], in two halves like the U-Nets; the noise label is embedded by cosines."""

    def __init__(self, dim: int = 2, width: int = 128, num_blocks: int = 4, label_dim: int = 0) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, width)
        self.register_buffer("frequencies", torch.linspace(0.1, 6.0, width // 2), persistent=False)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.embed_label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        self.enc = nn.ModuleList(Block(width) for _ in range(num_blocks // 2))
        self.dec = nn.ModuleList(Block(width) for _ in range(num_blocks - num_blocks // 2))
        self.outer = nn.Linear(width, dim)
        nn.init.zeros_(self.outer.weight)

    def encode(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> list[Tensor]:
        """The hidden state and the embedding, each [B, width]."""
        angle = noise_labels[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin()], 1))
        if self.embed_label is not None:
            embedding = embedding + self.embed_label(class_labels)
        h = self.inner(x)
        for block in self.enc:
            h = block(h, embedding)
        return [h, embedding]

    def decode(self, state: list[Tensor]) -> Tensor:
        """The raw output [B, dim]."""
        h, embedding = state
        for block in self.dec:
            h = block(h, embedding)
        return self.outer(h)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(x, noise_labels, class_labels))


class Block(nn.Module):
    """h + W2 silu(W1 (h + embedding)), normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.shift = nn.Linear(width, width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        z = torch.nn.functional.silu(self.up(self.norm(h)) + self.shift(embedding))
        return h + self.down(z)


class GaussianMixture(Denoiser):
    """The exact E[x0 | x_t] of an isotropic mixture sum_k w_k N(mean_k, std_k^2 I); it has no parameters."""

    prediction: Prediction = "x0"
    means: Tensor
    stds: Tensor
    weights: Tensor

    def __init__(self, schedule: NoiseSchedule, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        super().__init__(nn.Identity(), schedule)
        self.register_buffer("means", means)  # [K, D]
        self.register_buffer("stds", stds)  # [K]
        self.register_buffer("weights", weights)  # [K]

    def encode(self, x_t: Tensor, t: Tensor, cond: Cond) -> Encoding:
        return Encoding(x_t, t, [], [])

    def finish(self, encoding: Encoding) -> Tensor:
        x_t = encoding.x_t.flatten(1)
        alpha, sigma = (expand(c, x_t) for c in self.schedule.alpha_sigma(encoding.t))
        variance = (alpha * self.stds) ** 2 + sigma**2  # [B, K]
        offset = x_t[:, None] - alpha[:, :, None] * self.means  # [B, K, D]
        dim = x_t.shape[1]
        log_density = -0.5 * (offset**2).sum(2) / variance - 0.5 * dim * variance.log()
        responsibility = (log_density + self.weights.log()).softmax(1)
        gain = alpha * self.stds**2 / variance
        x0 = (responsibility[:, :, None] * (self.means + gain[:, :, None] * offset)).sum(1)
        return x0.view_as(encoding.x_t)
