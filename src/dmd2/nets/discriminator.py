"""The GAN's discriminator (DMD2, section 4.3): small heads that tell real from generated samples by
features of the critic or of the frozen teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser


class WholeMap(nn.Conv2d):
    """A convolution whose kernel is a whole map: [B, C, h, w] to [B, C', 1, 1].

    Of a map that has another size than the kernel it takes the means over as many parts.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C', 1, 1]."""
        height, width = self.kernel_size
        # A map of the kernel's size keeps every bit: each part is one place.
        return super().forward(adaptive_avg_pool2d(x, (height, width)))


class ConvHead(nn.Module):
    """Feature map [B, C, h, w] to one logit an image [B, 1]: the head of DMD2 on ImageNet.

    Stride-2 convolutions down to at most 4x4, one convolution to 1x1, GroupNorm and SiLU after
    each; then a 1x1 convolution to the logit. A side that is at most 4 already is kept. It is made
    for the map `shape`, and takes maps of all sizes: the convolution to 1x1 is a `WholeMap`.

    num_groups  Of GroupNorm; must divide the channels.
    width       Channels that a 1x1 convolution, GroupNorm and SiLU make of the C first; None keeps
                C. The map of a transformer's tokens wants it: with n halvings of a square map that
                end at 4x4 the head has

                    (C + 4) W + (n + 1) (16 W^2 + 3 W) + 1

                parameters (W = width), 6.0M for C = 3072 at 64x64 with W = 256, and 755M without.
    """

    def __init__(self, shape: torch.Size, num_groups: int = 32, width: int | None = None) -> None:
        super().__init__()
        channels, size = shape[1], list(shape[2:])
        layers: list[nn.Module] = []
        if width is not None:
            layers += self._layer(nn.Conv2d(channels, width, 1), num_groups)
            channels = width
        # A side of so many places has one left behind the halvings.
        self.least = [1, 1]
        while max(size) > 4:
            # Kernel 4, stride 2, padding 1: exactly half of an even side, rounded down of an odd.
            # Kernel 3, stride 1, padding 1: as it was.
            kernel, stride = ([a if n > 4 else b for n in size] for a, b in ((4, 3), (2, 1)))
            conv = nn.Conv2d(channels, channels, (kernel[0], kernel[1]), (stride[0], stride[1]), 1)
            layers += self._layer(conv, num_groups)
            size = [n // step for n, step in zip(size, stride, strict=True)]
            self.least = [n * step for n, step in zip(self.least, stride, strict=True)]
        layers += self._layer(WholeMap(channels, channels, (size[0], size[1])), num_groups)
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    @staticmethod
    def _layer(conv: nn.Conv2d, num_groups: int) -> list[nn.Module]:
        return [conv, nn.GroupNorm(num_groups, conv.out_channels), nn.SiLU()]

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] to logits [B, 1]."""
        # A side that is shorter has its places several times; any other map stays as it is.
        height, width = map(max, zip(features.shape[2:], self.least, strict=True))
        return self.layers(adaptive_avg_pool2d(features, (height, width))).flatten(1)


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


class MeanHead(nn.Module):
    """The mean of a sample's features [B, ...] as its logit [B, 1]: SiDA's (arXiv:2410.14919).

    It has no weights: the network whose features it reads is the discriminator.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """[B, ...] to logits [B, 1]."""
        return features.flatten(1).mean(1, keepdim=True)


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
