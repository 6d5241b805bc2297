"""Inception-v3: features [B, 2048] for FID and classes [B, 1008] for the Inception score, from
weights by hash.
"""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmd2.metrics.detectors import Detector
from dmd2.metrics.download import fetched

CLEAN_FID_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
CLEAN_FID_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
TORCH_FIDELITY_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
TORCH_FIDELITY_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class CleanFidInception(Detector):
    """NVIDIA's TorchScript port, which clean-fid and StyleGAN use and EDM's FID is of; no pickle.

    It resizes inside, as TensorFlow did: clean-fid's mode "legacy_tensorflow". The file is looked
    for in `folder`,
    and fetched there once unless `fetch` is false.
    """

    def __init__(
        self, folder: str | Path, fetch: bool = True, sha256: str | None = CLEAN_FID_SHA256
    ) -> None:
        super().__init__()
        self.sha256 = sha256
        self.net = pixelwise(
            torch.jit.load(fetched(folder, CLEAN_FID_URL, sha256, fetch), map_location="cpu").eval()
        )
        for parameter in self.net.parameters():  # a ScriptModule has no requires_grad_
            parameter.requires_grad_(False)

    def features(self, samples: Tensor) -> Tensor:
        return self.net(as_colour(samples), return_features=True).flatten(1)

    def key(self) -> str | None:
        return self.sha256 and f"{type(self).__name__} {self.sha256}"


class CleanFidClasses(CleanFidInception):
    """The same network's log probabilities [B, 1008], without the last layer's bias: what the
    Inception score reads.

    A pass of its own: beside `CleanFidInception` it doubles the work.
    """

    def features(self, samples: Tensor) -> Tensor:
        probabilities = self.net(as_colour(samples), no_output_bias=True)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class TorchFidelityInception(Detector):
    """torch-fidelity's port, torchmetrics' too, with its TensorFlow-like resize; needs the package
    torch-fidelity.

    Its numbers differ a little from `CleanFidInception`'s: name the metric that reads it so.
    """

    def __init__(
        self, folder: str | Path, fetch: bool = True, sha256: str | None = TORCH_FIDELITY_SHA256
    ) -> None:
        super().__init__()
        self.sha256 = sha256
        path = fetched(folder, TORCH_FIDELITY_URL, sha256, fetch)
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415
            FeatureExtractorInceptionV3,
        )

        # the package unpickles what it is given: hand it our own copy of the bare tensors instead
        tensors = io.BytesIO()
        torch.save(torch.load(path, weights_only=True), tensors)
        tensors.seek(0)
        self.net = pixelwise(FeatureExtractorInceptionV3("inception", ["2048"], tensors))

    def features(self, samples: Tensor) -> Tensor:
        return self.net(as_colour(samples))[0]

    def key(self) -> str | None:
        return self.sha256 and f"{type(self).__name__} {self.sha256}"


def pixelwise(net: Any) -> Any:
    """The network with its weights in channels-last order: the same numbers to rounding, in less
    time.
    """
    return net.to(memory_format=torch.channels_last)


def as_colour(images: Tensor) -> Tensor:
    """Images uint8 [B, 1 or 3, H, W] as [B, 3, H, W]."""
    return images.expand(-1, 3, -1, -1)
