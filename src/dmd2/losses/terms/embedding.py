"""The distance of samples and real data in features of random networks, as an auxiliary loss."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, leaky_relu

from dmd2.losses import functional as F
from dmd2.losses.term import Logs
from dmd2.losses.turns import GeneratorTurn
from dmd2.randomness import generator


class EmbeddingDistance:
    """Squared MMD of generated and real samples in features of a random convolutional network.

    E k(x, x') + E k(y, y') - 2 E k(x, y) of generated x and real y (`functional.gaussian_mmd2`),
    after Embedding Loss (arXiv:2604.22379): no network is trained for it. Here each iteration draws
    a network anew, the same on all ranks: three 3x3 convolutions, after each of which a map whose
    smaller side is above 4 is halved, and averages over 2x2 parts of the last map. Samples are
    images or latents [B, C, H, W], B above 1. Labels are not read: it compares whole distributions.

    width   Channels of each convolution.
    scales  Widths of the Gaussian kernels, over the root mean squared distance of the features.

    Raises ValueError for a width below 1, for no scales, or for one that is not above 0.
    """

    # Of clean samples: nothing is noised.
    view = None
    needs = frozenset({"real"})
    decodes: frozenset[str] = frozenset()

    def __init__(
        self, weight: float, width: int = 32, scales: tuple[float, ...] = (0.25, 0.5, 1.0)
    ) -> None:
        if width < 1 or not scales or min(scales) <= 0:
            raise ValueError(
                f"width and all scales must be above 0, got {width} and {[*scales]}; type e.g. "
                "loss.generator.embedding.width=32 loss.generator.embedding.scales=[0.25,0.5,1.0]"
            )
        self.weight, self.width, self.scales = weight, width, scales

    def __call__(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The estimate [], which may be negative where both are alike."""
        assert turn.real is not None  # `needs` asked for it
        # Differences of means: in the 8 bits of bfloat16 most of them are lost.
        with torch.autocast(turn.x.device.type, enabled=False):
            fake, real = (self.features(x.float(), turn) for x in (turn.x, turn.real))
            # The unit of length is a constant of the gradient.
            unit = torch.cdist(fake.detach(), real).square().mean().sqrt()
            return F.gaussian_mmd2(fake / unit, real / unit, self.scales), {}

    def features(self, x: Tensor, turn: GeneratorTurn) -> Tensor:
        """Features [B, 4 width] of this iteration's network, of x [B, C, H, W]."""
        for i in range(3):
            shape = (self.width, x.shape[1], 3, 3)
            # Not of the turn's draws, whose rows differ from rank to rank.
            draws = generator(turn.draws.seed, turn.draws.iteration, "embedding", i)
            # Kaiming's scale: the size of the activations stays as it is.
            kernel = torch.randn(shape, generator=draws) * (2 / (9 * x.shape[1])) ** 0.5
            x = leaky_relu(conv2d(x, kernel.to(x), padding=1), 0.2)
            x = avg_pool2d(x, 2) if min(x.shape[2:]) > 4 else x
        return adaptive_avg_pool2d(x, 2).flatten(1)
