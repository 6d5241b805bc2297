"""Detectors: frozen maps from samples to features, among them the random convolutions behind
"rfd".
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.randomness import generator

CHUNK = 500  # samples at a time where a whole split is read


def as_floats(samples: Tensor) -> Tensor:
    """Images uint8 [B, C, H, W] as float32 in [-1, 1]; toy samples, which are floats, as they
    are.
    """
    return samples.float() / 127.5 - 1 if samples.dtype == torch.uint8 else samples.float()


class Detector(nn.Module):
    """Samples to float32 features [B, D]: always in evaluation mode, without gradients or
    autocast.
    """

    def fit(self, samples: Tensor, labels: Tensor) -> None:
        """Learn from the train split, which lies on the CPU, what the features need; nothing by
        default.
        """

    def key(self) -> str | None:
        """What the features are a function of beside the samples; None where they are not worth
        keeping.
        """
        return None

    def features(self, samples: Tensor) -> Tensor:
        """Features [B, D] of images uint8 [B, C, H, W] or toy samples float32 [B, 2]."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        with torch.autocast(samples.device.type, enabled=False):
            return self.features(samples).float()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the module around it does."""
        return super().train(False)


class Flatten(Detector):
    """The samples themselves as vectors: pixels in [-1, 1], or the toys' coordinates in the data's
    units.
    """

    def features(self, samples: Tensor) -> Tensor:
        return as_floats(samples).flatten(1)


class RandomConvolutions(Detector):
    """Principal components of fixed random convolution features: the space of "rfd".

    Three 3x3 convolutions with ReLU (orthogonal weights times 2, biases uniform in ±.3), a 2x2 max
    pool
    before the third; each map is averaged to 2x2. The 3 * 4 * `channels` responses are standardised
    and
    projected on `components` axes, both as the train split has them; no response is scaled by more
    than ten
    times the median one.
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
        """Draw the convolutions for the images' channels; mean, scale and axes from the train
        split.
        """
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
        # A response that the train split hardly ever turns on has no scale of its own: divided by
        # its std, one
        # odd pixel in a few samples would rule the distance.
        std = std.clamp_min(0.1 * std.median())
        _, axes = torch.linalg.eigh(((responses - mean) / std).T.cov())
        self.mean = mean.float()
        self.axes = (axes[:, -self.components :] / std[:, None]).float()

    def responses(self, images: Tensor) -> Tensor:
        """The raw responses [B, 3 * 4 * channels] of images uint8 [B, C, H, W]."""
        x = as_floats(images)
        pooled = []
        for i, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pool2d(x, 2) if i == 2 else x))
            pooled.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return torch.cat(pooled, 1)

    def features(self, samples: Tensor) -> Tensor:
        assert len(self.convolutions), "fit() comes first"
        return (self.responses(samples) - self.mean) @ self.axes

    def _convolution(self, in_channels: int, draws: torch.Generator) -> nn.Conv2d:
        convolution = nn.Conv2d(in_channels, self.channels, 3, padding=1)
        assert convolution.bias is not None
        nn.init.orthogonal_(convolution.weight, gain=2, generator=draws)
        nn.init.uniform_(convolution.bias, -0.3, 0.3, generator=draws)
        return convolution
