"""Guidance beyond one scale: on an interval of times, and rescaled to the conditional's norm."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dmd2.diffusion.schedules import expand


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance on an interval of times, rescaled where `patch` says how.

    scale  The scale w, as `guided` has it; 1 would be none.
    low    The lowest time t with guidance. Outside of low to high w is 1 (Kynkaanniemi et al. 2024,
           arXiv:2404.07724).
    high   The highest time t with guidance.
    patch  Side, in latent pixels, of the tokens in which the guided output gets the conditional's
           norm over channels: 1 for pixels, 2 for Qwen-Image's tokens; None leaves it as it is.
           Large scales then saturate less.

    Raises ValueError for a scale of 1, for an empty interval, and for a patch below 1.

    >>> Guidance(scale=4.0, patch=2, high=0.8)
    Guidance(scale=4.0, low=0.0, high=0.8, patch=2)
    """

    scale: float
    low: float = 0.0
    high: float = 1.0
    patch: int | None = None

    def __post_init__(self) -> None:
        if self.scale == 1:
            raise ValueError("a guidance of scale 1 is none; type teacher.guidance=1")
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"guidance wants 0 <= low < high <= 1, got low={self.low} and high={self.high}; "
                "type e.g. teacher.guidance.low=0.2"
            )
        if self.patch is not None and self.patch < 1:
            raise ValueError(f"guidance's patch must be at least 1, got {self.patch}")

    def __format__(self, spec: str) -> str:
        """The scale in the format `spec`, and in words what else there is."""
        return "".join(
            [
                format(self.scale, spec),
                f" at times {self.low:g} to {self.high:g}" * ((self.low, self.high) != (0, 1)),
                f", rescaled by {self.patch}x{self.patch}" * (self.patch is not None),
            ]
        )

    def __call__(
        self,
        conditional: Tensor,
        unconditional: Tensor,
        x_t: Tensor,
        t: Tensor,
        alpha: Tensor,
        prediction: str,
    ) -> Tensor:
        """Guided x0_hat [B, ...] of both x0_hat, at x_t [B, ...], t and alpha [B].

        prediction  What the network outputs: the norm is that of its output.
        """
        # A w for each row: which times are inside is not read back to the host.
        inside = (t >= self.low) & (t <= self.high)
        w = expand(torch.where(inside, self.scale, 1.0), x_t)
        x0 = unconditional + w * (conditional - unconditional)
        if self.patch is None:
            return x0
        # Every output is proportional to a x_t - x0, as `to_x0` has it. In x0 itself the norm would
        # be the data's, which is no measure of how far guidance went.
        a = {"v": alpha, "flow": torch.ones_like(alpha)}.get(prediction, 1 / alpha)
        # For eps, and x0 is treated as it, a is infinite at alpha = 0, as in `to_x0`.
        origin = expand(a, x_t) * x_t
        output = origin - x0
        ratio = self._norm(origin - conditional) / self._norm(output).clamp_min(1e-12)
        return origin - ratio * output

    def _norm(self, output: Tensor) -> Tensor:
        """The norm over channels and tokens, [B, 1, ...], of [B, C, ...]."""
        squares = output.square().sum(1, keepdim=True)
        if self.patch is not None and self.patch > 1:
            # The mean in place of the sum: only ratios of norms are taken.
            means = functional.avg_pool2d(squares, self.patch)
            squares = functional.interpolate(means, scale_factor=self.patch, mode="nearest")
        return squares.sqrt()
