"""Detectors: frozen feature extractors, with pixels and the random convolutions behind "rfd"."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.randomness import generator

# Samples at a time, where a split is read to its end.
CHUNK = 500


def as_floats(samples: Tensor) -> Tensor:
    """Images uint8 [B, C, H, W] as float32 in [-1, 1]; toy samples, floats, as they are."""
    return samples.float() / 127.5 - 1 if samples.dtype == torch.uint8 else samples.float()


class Detector(nn.Module):
    """Base: samples to float32 features [B, D]; evaluation mode, no gradients, no autocast."""

    # nn.Module says Any of what a call returns.
    __call__: Callable[..., Tensor]

    def fit(self, samples: Tensor, labels: Tensor) -> None:
        """Learn what the features need from the train split, on the CPU; nothing by default."""

    def key(self) -> str | None:
        """A cache key of the detector: its kind, weights and settings.

        None, the default, says that its features are cheap and are not cached.
        """
        return None

    def features(self, samples: Tensor) -> Tensor:
        """Features [B, D] of images uint8 [B, C, H, W] or toy samples float32 [B, 2]."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        """`features` in float32, whatever precision the training around it has."""
        # Under bfloat16 a Fréchet distance would change with the trainer's precision.
        with torch.autocast(samples.device.type, enabled=False):
            return self.features(samples).float()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)


class Flatten(Detector):
    """The samples as vectors [B, D]: pixels in [-1, 1], or a toy's coordinates.

    >>> Flatten()(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8))
    tensor([[1., 1., 1., 1.]])
    """

    def features(self, samples: Tensor) -> Tensor:
        """Vectors [B, C H W] of images, or [B, 2] of toy samples."""
        return as_floats(samples).flatten(1)


class RandomConvolutions(Detector):
    """Principal components of fixed random convolution features: the feature space of "rfd".

    Three 3x3 convolutions with ReLU (orthogonal weights times 2, biases uniform in ±0.3), a 2x2 max
    pool before the third; each map is averaged to 2x2. The 3 * 4 * `channels` responses are
    standardised and projected on their first `components` principal axes, both fitted to the train
    split. A response is divided by at least a tenth of the median standard deviation.

    No weights are trained or downloaded, so it suits small images of any kind.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, seed: int = 0, channels: int = 48, components: int = 48) -> None:
        super().__init__()
        self.seed, self.channels, self.components = seed, channels, components
        self.convolutions = nn.ModuleList()
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("axes", torch.empty(0))

    @torch.no_grad()
    def fit(self, samples: Tensor, labels: Tensor) -> None:
        """Draw the convolutions; take mean, scale and axes from the train split [N, C, H, W]."""
        in_channels = samples.shape[1]
        draws = generator(self.seed, "random convolutions")
        self.convolutions = nn.ModuleList(
            self._convolution(num, draws) for num in (in_channels, self.channels, self.channels)
        )
        device = self.mean.device
        self.convolutions.requires_grad_(False).eval().to(device)
        responses = torch.cat(
            [self.responses(chunk.to(device)) for chunk in samples.split(CHUNK)]
        ).double()
        std, mean = torch.std_mean(responses, 0)
        # A response that is nearly constant on the train split must not be divided by its own
        # std: one odd pixel in a few samples would then dominate the distance.
        std = std.clamp_min(0.1 * std.median())
        # eigh sorts eigenvalues in rising order: the leading axes are the last columns.
        _, axes = torch.linalg.eigh(((responses - mean) / std).T.cov())
        self.mean = mean.float()
        # Standardisation and projection are one matrix.
        self.axes = (axes[:, -self.components :] / std[:, None]).float()

    def responses(self, images: Tensor) -> Tensor:
        """The raw responses [B, 3 * 4 * channels] of images uint8 [B, C, H, W]."""
        x = as_floats(images)
        pooled = []
        for i, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pool2d(x, 2) if i == 2 else x))
            # All three layers' responses are features: fine and coarse ones.
            pooled.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return torch.cat(pooled, 1)

    def features(self, samples: Tensor) -> Tensor:
        """Principal components [B, components] of images uint8 [B, C, H, W]."""
        assert len(self.convolutions), "fit() comes first"
        return (self.responses(samples) - self.mean) @ self.axes

    def _convolution(self, in_channels: int, draws: torch.Generator) -> nn.Conv2d:
        # Orthogonal weights keep channels different; biases make ReLUs switch at different values.
        convolution = nn.Conv2d(in_channels, self.channels, 3, padding=1)
        assert convolution.bias is not None
        nn.init.orthogonal_(convolution.weight, gain=2, generator=draws)
        nn.init.uniform_(convolution.bias, -0.3, 0.3, generator=draws)
        return convolution
