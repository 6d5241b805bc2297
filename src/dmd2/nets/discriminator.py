"""The GAN's discriminator (DMD2, section 4.3): small heads that tell real from generated samples by
features of the critic or of the frozen teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser


class ConvHead(nn.Module):
    """Feature map [B, C, S, S] to one logit an image [B, 1]: the head of DMD2 on ImageNet.

    Stride-2 convolutions down to at most 4x4, one convolution to 1x1, GroupNorm and SiLU after
    each; then a 1x1 convolution to the logit. C must be a multiple of `num_groups`.
    """

    def __init__(self, shape: torch.Size, num_groups: int = 32) -> None:
        super().__init__()
        channels, size = shape[1], shape[2]
        layers: list[nn.Module] = []
        while size > 4:
            # Kernel 4, stride 2, padding 1: exactly half of an even size, rounded down of an odd.
            layers += self._layer(nn.Conv2d(channels, channels, 4, 2, 1), num_groups)
            size //= 2
        layers += self._layer(nn.Conv2d(channels, channels, size, size), num_groups)
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    @staticmethod
    def _layer(conv: nn.Conv2d, num_groups: int) -> list[nn.Module]:
        return [conv, nn.GroupNorm(num_groups, conv.out_channels), nn.SiLU()]

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] to logits [B, 1]."""
        return self.layers(features).flatten(1)


class VectorHead(nn.Module):
    """Feature vector [B, D] to one logit a sample [B, 1]: for toys, whose networks are MLPs."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        width = shape[1]
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] to logits [B, 1]."""
        return self.layers(features)


class Discriminator(nn.Module):
    """A head for each tapped layer: features, a list of [B, ...], to logits [B, num_heads]."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits float32 [B, num_heads], positive for "real"; a loss averages over the heads."""
        # In float32 also under autocast: the heads are small, and differences of logits count.
        with torch.autocast(features[0].device.type, enabled=False):
            return torch.cat(
                [head(f.float()) for head, f in zip(self.heads, features, strict=True)], 1
            )


def discriminator_on(
    denoiser: Denoiser, head: "type[nn.Module]", shape: tuple[int, ...], cond: Cond
) -> Discriminator:
    """A discriminator on the taps of `denoiser`.

    `head` makes a head of a feature's shape, which comes from a dry run on one sample of `shape`
    under `cond` (one row). Raises ValueError where nothing is tapped.
    """
    if not denoiser.taps:
        raise ValueError(
            "a discriminator needs features; name them with teacher.denoiser.taps=[LAYER,...]"
        )
    with torch.no_grad():
        # Any values do: only shapes are read. The noise's end, t = 1, is valid for all schedules.
        features = denoiser.features(torch.zeros(1, *shape), torch.ones(1), cond)
    return Discriminator([head(feature.shape) for feature in features])
