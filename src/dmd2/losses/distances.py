"""Distances between images in [-1, 1] for DMD's regression; the loss file names the one in use."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss


class SquaredError(nn.Module):
    """Mean squared error of pixels: DMD's own ablation (CIFAR-10 FID 2.78 against 2.66 with LPIPS)."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return mse_loss(image, target)


class LPIPS(nn.Module):
    """Perceptual distance on VGG-16 features, both images resized to 224x224 first (DMD section 4.1).

    Needs torchvision and its file vgg16-397923af.pth in torch's hub folder; nothing is fetched.
    """

    def __init__(self, size: int = 224) -> None:
        super().__init__()
        weights = Path(torch.hub.get_dir()) / "checkpoints" / "vgg16-397923af.pth"
        if not weights.exists():
            raise FileNotFoundError(
                f"LPIPS needs VGG-16's weights: put https://download.pytorch.org/models/{weights.name} at "
                f"{weights}, or choose the pixel distance: "
                "loss.generator.regression.distance._target_=dmd2.losses.distances.SquaredError"
            )
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415 (torchvision)

        self.size = size
        self.network = LearnedPerceptualImagePatchSimilarity("vgg").net.requires_grad_(False).eval()

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        rgb = [x.expand(-1, 3, -1, -1) for x in (image, target)]
        resized = [interpolate(x, (self.size, self.size), mode="bilinear") for x in rgb]
        return self.network(*resized).mean()
