"""Inception-v3 detectors: features [B, 2048] for FID, classes [B, 1008] for the Inception score.

Weights are downloaded once and checked by their SHA-256.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmd2.io.files import refused
from dmd2.io.tensors import reason_of
from dmd2.metrics.detectors import Detector
from dmd2.metrics.download import fetched

# Published weights, and the hashes of the files that this project was checked with.
CLEAN_FID_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
CLEAN_FID_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
TORCH_FIDELITY_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
TORCH_FIDELITY_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class CleanFidInception(Detector):
    """NVIDIA's TorchScript port of Inception, which clean-fid, StyleGAN and EDM use.

    folder  Where its file is looked for.
    fetch   Whether it is downloaded, once, where it is missing.
    sha256  What the file must have; None checks nothing, and features are then not cached.

    It resizes inside, as TensorFlow did: clean-fid's mode "legacy_tensorflow".
    """

    def __init__(
        self, folder: str | Path, fetch: bool = True, sha256: str | None = CLEAN_FID_SHA256
    ) -> None:
        super().__init__()
        self.sha256 = sha256
        # TorchScript, not a pickle: loading it runs no Python code of others.
        path = fetched(folder, CLEAN_FID_URL, sha256, fetch)
        with warnings.catch_warnings():
            # torch wants another format, which the published file has not.
            warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
            self.net = pixelwise(torch.jit.load(path, map_location="cpu").eval())
        # A ScriptModule has no requires_grad_.
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)

    def features(self, samples: Tensor) -> Tensor:
        """Features [B, 2048] of images uint8 [B, 1 or 3, H, W]."""
        features: Tensor = self.net(as_colour(samples), return_features=True)
        return features.flatten(1)

    def key(self) -> str | None:
        """The class's name and the file's SHA-256; None where that is not checked."""
        # The class too: one file gives features here and classes in a subclass.
        return self.sha256 and f"{type(self).__name__} {self.sha256}"


class CleanFidClasses(CleanFidInception):
    """The same network's log probabilities [B, 1008], for the Inception score.

    The last layer's bias is left out, as in StyleGAN's Inception score. Beside `CleanFidInception`
    it is a second pass, which doubles the work.
    """

    def features(self, samples: Tensor) -> Tensor:
        """Log probabilities [B, 1008] of images uint8 [B, 1 or 3, H, W]."""
        probabilities: Tensor = self.net(as_colour(samples), no_output_bias=True)
        # A probability that underflowed to 0 would give -inf, and NaN in the score's 0 * log 0.
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class TorchFidelityInception(Detector):
    """torch-fidelity's port of Inception, which torchmetrics uses, with a resize as TensorFlow's.

    Arguments as in `CleanFidInception`, whose numbers differ a little: name the metric by the port.
    Needs the package torch-fidelity.
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

        # The package unpickles the file it is given, and a pickle can run code. So it gets a copy
        # that was read with weights_only.
        tensors = io.BytesIO()
        try:
            torch.save(torch.load(path, weights_only=True), tensors)
        except Exception as error:  # a hostile file can provoke any
            raise refused(path, reason_of(error)) from error
        tensors.seek(0)
        self.net = pixelwise(FeatureExtractorInceptionV3("inception", ["2048"], tensors))

    def features(self, samples: Tensor) -> Tensor:
        """Features [B, 2048] of images uint8 [B, 1 or 3, H, W]."""
        features: Tensor = self.net(as_colour(samples))[0]
        return features

    def key(self) -> str | None:
        """The class's name and the file's SHA-256; None where that is not checked."""
        return self.sha256 and f"{type(self).__name__} {self.sha256}"


def pixelwise(net: Any) -> Any:
    """The network with its weights in channels-last order: faster, the same numbers to rounding."""
    return net.to(memory_format=torch.channels_last)


def as_colour(images: Tensor) -> Tensor:
    """Images uint8 [B, 1 or 3, H, W] as [B, 3, H, W]."""
    return images.expand(-1, 3, -1, -1)
