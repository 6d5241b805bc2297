"""DINOv2 features for FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675), from a folder on this
machine.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dmd2.metrics.detectors import Detector
from dmd2.metrics.download import sha256_of
from dmd2.metrics.inception import as_colour

SIZE = 224  # pixels that images are resized to
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels in [0, 1]


class DinoV2(Detector):
    """The class token [B, 1024] (ViT-L/14) after the last norm, of images resized bicubically,
    antialiased.

    `folder` holds config.json and model.safetensors, such as those of facebook/dinov2-large;
    tensors only, and
    nothing is fetched or run from there. Needs the package transformers, which interpolates the
    positions for 224
    pixels almost as the original code does: distances may differ from published ones in the third
    digit.
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

        self.net = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.net.requires_grad_(False).eval()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def key(self) -> str:
        return f"{type(self).__name__} {sha256_of(self.path)}"

    def features(self, samples: Tensor) -> Tensor:
        x = F.interpolate(
            as_colour(samples).float() / 255, (SIZE, SIZE), mode="bicubic", antialias=True
        )
        return self.net((x - self.mean) / self.std).pooler_output
