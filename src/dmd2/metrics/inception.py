"""Inception-v3 features [B, 2048] for FID, from weights that the user puts in place; it downloads nothing."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor

from dmd2.metrics.detectors import Detector

CLEAN_FID_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
CLEAN_FID_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
TORCH_FIDELITY_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
TORCH_FIDELITY_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def find_weights(folder: str | Path, url: str, sha256: str | None) -> Path:
    """The file of `url` inside `folder`.

    Raises FileNotFoundError if it is not there, ValueError if its SHA-256 is another (None checks nothing).
    """
    path = Path(folder) / url.rsplit("/", 1)[1]
    if not path.exists():
        raise FileNotFoundError(f"no Inception weights: download {url} to {path.absolute()}")
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{path} has SHA-256 {found} instead of {sha256}: delete it and download {url}")
    return path


class CleanFidInception(Detector):
    """NVIDIA's TorchScript port, which clean-fid and StyleGAN use; it resizes inside, as TensorFlow did."""

    def __init__(self, folder: str | Path, sha256: str | None = CLEAN_FID_SHA256) -> None:
        super().__init__()
        self.net = torch.jit.load(find_weights(folder, CLEAN_FID_URL, sha256), map_location="cpu").eval()
        for parameter in self.net.parameters():  # a ScriptModule has no requires_grad_
            parameter.requires_grad_(False)

    def features(self, samples: Tensor) -> Tensor:
        return self.net(as_colour(samples), return_features=True).flatten(1)


class TorchFidelityInception(Detector):
    """torch-fidelity's port, with its TensorFlow-like resize; needs the package torch-fidelity."""

    def __init__(self, folder: str | Path, sha256: str | None = TORCH_FIDELITY_SHA256) -> None:
        super().__init__()
        path = find_weights(folder, TORCH_FIDELITY_URL, sha256)
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415
            FeatureExtractorInceptionV3,
        )

        # the package unpickles what it is given: hand it our own copy of the bare tensors instead
        tensors = io.BytesIO()
        torch.save(torch.load(path, weights_only=True), tensors)
        tensors.seek(0)
        self.net = FeatureExtractorInceptionV3("inception", ["2048"], tensors)

    def features(self, samples: Tensor) -> Tensor:
        return self.net(as_colour(samples))[0]


def as_colour(images: Tensor) -> Tensor:
    """Images uint8 [B, 1 or 3, H, W] as [B, 3, H, W]."""
    return images.expand(-1, 3, -1, -1)
