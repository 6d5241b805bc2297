"""The GAN's discriminator (DMD2 section 4.3): small heads on features of the critic or of the
frozen teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser


class ConvHead(nn.Module):
    """One logit an image from a feature map [B, C, S, S] (DMD2's ImageNet head).

    Stride-2 convolutions down to 4x4, one 4x4 convolution to 1x1, one logit; GroupNorm and SiLU
    after each.
    """

    def __init__(self, shape: torch.Size, num_groups: int = 32) -> None:
        super().__init__()
        channels, size = shape[1], shape[2]
        layers: list[nn.Module] = []
        while size > 4:
            layers += self._layer(nn.Conv2d(channels, channels, 4, 2, 1), num_groups)
            size //= 2
        layers += self._layer(nn.Conv2d(channels, channels, size, size), num_groups)
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    @staticmethod
    def _layer(conv: nn.Conv2d, num_groups: int) -> list[nn.Module]:
        return [conv, nn.GroupNorm(num_groups, conv.out_channels), nn.SiLU()]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).flatten(1)


class VectorHead(nn.Module):
    """One logit a sample from a feature vector [B, D]."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        width = shape[1]
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Discriminator(nn.Module):
    """A head for each tapped layer: features, a list of [B, ...], to logits [B, num_heads], in
    float32.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: list[Tensor]) -> Tensor:
        with torch.autocast(features[0].device.type, enabled=False):
            return torch.cat(
                [head(f.float()) for head, f in zip(self.heads, features, strict=True)], 1
            )


def discriminator_on(
    denoiser: Denoiser, head: "type[nn.Module]", shape: tuple[int, ...], cond: Cond
) -> Discriminator:
    """A discriminator on the taps of `denoiser`, whose widths come from a dry run on one sample of
    `shape`.

    `head` makes one head of a feature's shape. Raises ValueError where nothing is tapped.
    """
    if not denoiser.taps:
        raise ValueError(
            "a discriminator needs features; name them with teacher.denoiser.taps=[LAYER,...]"
        )
    with torch.no_grad():
        features = denoiser.features(torch.zeros(1, *shape), torch.ones(1), cond)
    return Discriminator([head(feature.shape) for feature in features])
