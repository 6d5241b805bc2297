"""DINOv2 features for the Fréchet distance FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675)."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dmd2.io.hub import named_in_errors
from dmd2.io.pretrained import read_whole
from dmd2.io.progress import hashed
from dmd2.metrics.detectors import Detector
from dmd2.metrics.inception import as_colour

# Pixels a side: 16 patches of ViT-L/14.
SIZE = 224
# ImageNet's mean and standard deviation by channel, of pixels in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(Detector):
    """The class token [B, 1024] of ViT-L/14 after the last norm.

    `folder` holds config.json and model.safetensors, such as those of facebook/dinov2-large.
    Nothing is downloaded, and no code is run from there. Raises FileNotFoundError where it has no
    weights.

    Needs the package transformers. It interpolates the position embeddings for 224 pixels almost as
    the original code does: distances may differ from published ones in the third digit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "model.safetensors"
        if not self.path.exists():
            raise FileNotFoundError(
                "no DINOv2 weights: put config.json and model.safetensors of "
                f"facebook/dinov2-large into {folder}"
            )
        from transformers import Dinov2Model  # noqa: PLC0415

        with named_in_errors(folder, "DINOv2"):
            net = read_whole(Dinov2Model, folder, local_files_only=True, use_safetensors=True)
        self.net = net.requires_grad_(False).eval()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def key(self) -> str:
        """The class's name and the SHA-256 of the weights."""
        return f"{type(self).__name__} {hashed(self.path)}"

    def features(self, samples: Tensor) -> Tensor:
        """Class tokens [B, D] of images uint8 [B, 1 or 3, H, W]."""
        # Without antialiasing images larger than 224 would gain false detail.
        x = F.interpolate(
            as_colour(samples).float() / 255, (SIZE, SIZE), mode="bicubic", antialias=True
        )
        token: Tensor = self.net((x - self.mean) / self.std).pooler_output
        return token
