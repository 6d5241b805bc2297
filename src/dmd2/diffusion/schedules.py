"""Noise schedules x_t = alpha(t) x0 + sigma(t) noise, t in [0, 1].

Every schedule is also a table of `num_rows` noise levels, as in DDPM. Row `num_rows - 1` is t = 1,
so the timesteps of the papers (999, 749, ...) name the same levels here.
"""

from typing import Any

import torch
from torch import Tensor, nn


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """View a per-sample coefficient [B] so that it multiplies x [B, ...]."""
    return coefficient.view(-1, *[1] * (x.ndim - 1))


def _linspace(start: float, end: float, num: int) -> Tensor:
    return torch.linspace(start, end, num, dtype=torch.float64, device="cpu")


class NoiseSchedule(nn.Module):
    """x_t = alpha(t) x0 + sigma(t) noise; a subclass gives alpha, sigma and the inverse.

    >>> schedule = Flow(shift=1.0)
    >>> schedule.add_noise(torch.zeros(1, 2), torch.ones(1, 2), t=torch.tensor([0.25]))
    tensor([[0.2500, 0.2500]])
    """

    prior_std: float
    """Standard deviation of the state that a sampler starts from, at t = 1."""

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.num_rows = num_rows

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, float32 [B], at t [B]."""
        raise NotImplementedError

    def start_std(self, t: float) -> float:
        """Standard deviation of the pure noise that a student's first step gets, told t."""
        return self.prior_std

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """t [B] at which sigma / alpha equals `ratio` [B]; for Karras that is sigma itself."""
        raise NotImplementedError

    def time_of_row(self, row: Tensor) -> Tensor:
        """t of a row of the table; row num_rows - 1 is t = 1."""
        return (row + 1) / self.num_rows

    def row_of_time(self, t: Tensor) -> Tensor:
        """The nearest row, int64 [B], of t [B]."""
        # Rounding: ceil(t * 1000) - 1 gives row 400 for t = 0.4 in float32, and not 399.
        return ((t * self.num_rows).round().long() - 1).clamp(0, self.num_rows - 1)

    def network_time(self, t: Tensor) -> Tensor:
        """What a network of diffusers is told at t [B]."""
        return self.row_of_time(t)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, ...] of clean data x0 and noise [B, ...] at t [B] (DMD section 3.2)."""
        alpha, sigma = self.alpha_sigma(t)
        # F(x, t) = alpha_t x + sigma_t noise: DMD's forward diffusion, for every schedule.
        return expand(alpha, x0) * x0 + expand(sigma, x0) * noise


class Karras(NoiseSchedule):
    """EDM's levels (Karras et al. 2022, Eq. 5): alpha = 1, sigma^(1/rho) linear in t.

    >>> [round(float(s), 3) for s in Karras().alpha_sigma(torch.tensor([0.0, 0.5, 1.0]))[1]]
    [0.002, 2.515, 80.0]
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        num_rows: int = 1000,
    ) -> None:
        super().__init__(num_rows)
        if not 0 < sigma_min < sigma_max:
            raise ValueError(
                f"sigma_min must lie between 0 and sigma_max, got {sigma_min} and {sigma_max}"
            )
        self.rho = rho
        self.prior_std = sigma_max  # beside it the data's own deviation is negligible
        self.low: float = sigma_min ** (1 / rho)
        self.high: float = sigma_max ** (1 / rho)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = 1 and EDM's sigma, float32 [B], at t [B]."""
        # In float64: the power multiplies rounding errors by rho.
        return torch.ones_like(t), self._level(t.double()).float()

    def start_std(self, t: float) -> float:
        """The level at t: EDM's network expects no more noise than it is told of."""
        return float(self._level(t))

    def _level(self, t: Any) -> Any:
        # EDM Eq. 5, t = 1 - i / (N - 1): of a number on the host, or of a tensor.
        return (self.low + t * (self.high - self.low)) ** self.rho

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """t [B] at which sigma equals `ratio` [B]: EDM Eq. 5 solved for t."""
        return ((ratio.double() ** (1 / self.rho) - self.low) / (self.high - self.low)).float()

    def time_of_row(self, row: Tensor) -> Tensor:
        """t of a row in the table of DMD2's ImageNet experiments, where row 0 is sigma_min."""
        # Both ends are levels here (EDM Eq. 5), so 999 intervals and not DDPM's 1000.
        return row / (self.num_rows - 1)

    def row_of_time(self, t: Tensor) -> Tensor:
        """The nearest row, int64 [B], of t [B]."""
        return (t * (self.num_rows - 1)).round().long().clamp(0, self.num_rows - 1)


class VP(NoiseSchedule):
    """A variance-preserving table (DDPM, Stable Diffusion): alpha^2 + sigma^2 = 1, by row.

    >>> VP.scaled_linear().row_of_time(torch.tensor([1.0, 0.75]))
    tensor([999, 749])
    """

    prior_std = 1.0  # alpha^2 + sigma^2 = 1, for data of unit variance
    alphas_cumprod: Tensor

    def __init__(self, alphas_cumprod: list[float] | Tensor) -> None:
        # On the CPU also where networks are built without memory (meta): its numbers are read.
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
        falling = table.ndim == 1 and len(table) > 0 and bool((table.diff() < 0).all())
        if not falling or not bool(((table > 0) & (table < 1)).all()):
            raise ValueError("alphas_cumprod must be one falling row of numbers between 0 and 1")
        super().__init__(len(table))
        # Not persistent: the table is the config's, and checkpoints stay loadable without it.
        self.register_buffer("alphas_cumprod", table, persistent=False)

    @classmethod
    def scaled_linear(
        cls, beta_start: float = 0.00085, beta_end: float = 0.012, num_rows: int = 1000
    ) -> "VP":
        """Stable Diffusion's table: sqrt(beta) linear from sqrt(beta_start) to sqrt(beta_end)."""
        beta = _linspace(beta_start**0.5, beta_end**0.5, num_rows) ** 2
        # alpha_bar_i = prod_{j <= i} (1 - beta_j), as in DDPM (Ho et al. 2020).
        return cls((1 - beta).cumprod(0))

    @classmethod
    def linear(cls, beta_start: float = 1e-4, beta_end: float = 0.02, num_rows: int = 1000) -> "VP":
        """DDPM's table, also DiT's and PixArt's: beta linear from beta_start to beta_end."""
        beta = _linspace(beta_start, beta_end, num_rows)
        return cls((1 - beta).cumprod(0))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar), sqrt(1 - alpha_bar) of the row nearest to t [B] (Ho et al. 2020)."""
        alpha2 = self.alphas_cumprod[self.row_of_time(t)]
        return alpha2.sqrt().float(), (1 - alpha2).sqrt().float()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """t [B] of the row whose sigma / alpha is nearest to `ratio` [B]."""
        # sigma / alpha = sqrt((1 - alpha_bar) / alpha_bar) rises with the row: binary search.
        table = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        above = torch.searchsorted(table, ratio.double().contiguous()).clamp(1, self.num_rows - 1)
        nearer_below = ratio - table[above - 1] < table[above] - ratio
        return self.time_of_row(above - nearer_below.long()).float()


class Flow(NoiseSchedule):
    """Rectified flow, alpha = 1 - sigma, with SD3's shift s: sigma = s t / (1 + (s - 1) t)."""

    prior_std = 1.0  # sigma(1) = 1 and alpha(1) = 0

    # For larger images a larger shift: more of the times are then noisy (SD3).
    def __init__(self, shift: float = 1.0, num_rows: int = 1000) -> None:
        super().__init__(num_rows)
        self.shift = shift

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 - sigma and sigma = s t / (1 + (s - 1) t), [B], at t [B] (SD3, Esser et al. 2024)."""
        # Not as 1 - sigma, which would not quite be 0 at t = 1.
        scale = 1 + (self.shift - 1) * t
        return (1 - t) / scale, self.shift * t / scale

    def network_time(self, t: Tensor) -> Tensor:
        """`num_rows` sigma [B], float32: a flow's network is told the noise level, and not t."""
        return self.num_rows * self.alpha_sigma(t)[1]

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """t [B] at which sigma / (1 - sigma) equals `ratio` [B]."""
        # First sigma of the ratio, then SD3's shift solved for t.
        sigma = ratio / (1 + ratio)
        return sigma / (self.shift - (self.shift - 1) * sigma)
