"""Distances between images in [-1, 1] for DMD's regression; the loss file names the one in use."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss


class Decoder(Protocol):
    """What makes images [B, 3, H, W] of latents; gradients flow through."""

    def require(self) -> None:
        """Raise FileNotFoundError where its files are not there."""
        ...

    def decode(self, latents: Tensor) -> Tensor: ...


class SquaredError(nn.Module):
    """Mean squared error of pixels: DMD's own ablation (CIFAR-10 FID 2.78 against 2.66 with
    LPIPS).
    """

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return mse_loss(image, target)


class LPIPS(nn.Module):
    """Perceptual distance on VGG-16 features, both images resized to `size` squared first (DMD
    section 4.1: 224).

    As published, by piq with `replace_pooling`: VGG's max pools are averages. Images in [-1, 1],
    scaled here as the
    ones in [0, 1] that piq asks for would be by ImageNet's mean and deviation.
    Needs torchvision and its file vgg16-397923af.pth in torch's hub folder; nothing is fetched.
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
                "loss.generator.regression.distance._target_=dmd2.losses.distances.SquaredError"
            )
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415 (torchvision)

        self.size = size
        self.network = LearnedPerceptualImagePatchSimilarity("vgg").net.requires_grad_(False).eval()
        average_pools(self.network)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        rgb = [x.expand(-1, 3, -1, -1) for x in (image, target)]
        if self.size is not None:
            rgb = [interpolate(x, (self.size, self.size), mode="bilinear") for x in rgb]
        return self.network(*rgb).mean()


def average_pools(network: nn.Module) -> None:
    """Put the average of as many pixels in the place of every max pool of a network."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(layer.kernel_size, layer.stride))


class Decoded(nn.Module):
    """A distance of what an autoencoder makes of latents (DMD section 4.1: LPIPS of Stable
    Diffusion's images).
    """

    def __init__(self, autoencoder: Decoder, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        autoencoder.require()  # now, and not when pairs were made for it
        self.autoencoder, self.distance = autoencoder, distance

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            seen = self.autoencoder.decode(target)
        return self.distance(self.autoencoder.decode(image), seen)
