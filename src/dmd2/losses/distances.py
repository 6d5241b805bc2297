"""Distances d(image, target) for DMD's regression loss (DMD Eq. 9): squared error, LPIPS, decoded.

Images are float [B, C, H, W] in [-1, 1]; a distance is one number []. The loss file names one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss


# Not nets.autoencoder's class: a distance asks for these two methods only.
class LatentDecoder(Protocol):
    """What makes images [B, 3, H, W] of latents; gradients flow through."""

    def require(self) -> None:
        """Raise FileNotFoundError where its files are not there."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] of latents [B, ...]."""


class SquaredError(nn.Module):
    """Mean squared error. DMD's ablation on CIFAR-10: FID 2.78, against 2.66 with LPIPS.

    >>> SquaredError()(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    tensor(1.)
    """

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """The mean [] over all entries of (image - target)^2."""
        return mse_loss(image, target)


class LPIPS(nn.Module):
    """LPIPS, the perceptual distance of Zhang et al. 2018, on VGG-16 features (DMD section 4.1).

    Both images are first resized to `size` by `size` pixels (224 in DMD); None leaves them. VGG's
    max pools are averages, as piq computes it with `replace_pooling`.

    Needs torchvision, and its file vgg16-397923af.pth in torch's hub folder: nothing is downloaded.
    Raises FileNotFoundError where the file is missing.
    """

    def __init__(self, size: int | None = 224) -> None:
        super().__init__()
        weights = Path(torch.hub.get_dir()) / "checkpoints" / "vgg16-397923af.pth"
        if not weights.exists():
            raise FileNotFoundError(
                "LPIPS needs VGG-16's weights: put "
                f"https://download.pytorch.org/models/{weights.name} at "
                f"{weights}, or choose another distance: loss=dmd or loss=regression of latents, "
                "of pixels "
                "loss.generator.regression.distance._target_=dmd2.losses.SquaredError"
            )
        # Here, since it imports torchvision, which is optional.
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415

        self.size = size
        network = LearnedPerceptualImagePatchSimilarity("vgg").net
        self.network: nn.Module = network.requires_grad_(False).eval()
        average_pools(self.network)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """The batch's mean distance []; images in [-1, 1], grey ones [B, 1, H, W] too."""
        # The network scales from [-1, 1]: the numbers are those of piq on images in [0, 1].
        rgb = [x.expand(-1, 3, -1, -1) for x in (image, target)]
        if self.size is not None:
            rgb = [interpolate(x, (self.size, self.size), mode="bilinear") for x in rgb]
        distances: Tensor = self.network(*rgb)
        return distances.mean()


def average_pools(network: nn.Module) -> None:
    """Replace every max pool of a network by an average pool of the same size, in place."""
    # A list first: layers are replaced while it is walked.
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(layer.kernel_size, layer.stride))


class Decoded(nn.Module):
    """A distance of decoded latents: DMD uses LPIPS on Stable Diffusion's images (section 4.1)."""

    def __init__(
        self, autoencoder: LatentDecoder, distance: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        autoencoder.require()  # now, and not when pairs were made for it
        self.autoencoder, self.distance = autoencoder, distance

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """The distance [] of two batches of latents [B, ...], both decoded first."""
        # A decoder's graph is large, and nobody trains the target.
        with torch.no_grad():
            decoded_target = self.autoencoder.decode(target)
        return self.distance(self.autoencoder.decode(image), decoded_target)
