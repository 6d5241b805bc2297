"""CLIP score: how near an image is to its caption (Hessel et al. 2021, arXiv:2104.08718), as DMD2
reports it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dmd2.metrics.base import FeatureMetric
from dmd2.metrics.detectors import Detector
from dmd2.metrics.preprocessing import Square, View, picture, pixels

MEAN, STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # CLIP's, of pixels in [0, 1]
STEPS = 2**40  # in a cosine of 1: sums of whole steps are exact in int64, up to 2^23 samples


class ClipImages(Detector):
    """Embeddings [B, D] of unit length from the image half of a `CLIPModel`, of what a `view` shows
    of each image.

    `source` is a folder, or a name on the hub; weights from safetensors files only. Needs the
    package transformers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: str, view: View) -> None:
        super().__init__()
        model = _clip(source)
        self.net, self.projection = model.vision_model, model.visual_projection
        self.view, self.square = view, Square(model.config.vision_config.image_size, "bicubic")
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def features(self, samples: Tensor) -> Tensor:
        x = torch.stack([pixels(self.square(self.view(picture(sample)))) for sample in samples])
        x = (x.to(self.mean.device) / 255 - self.mean) / self.std
        return F.normalize(self.projection(self.net(pixel_values=x).pooler_output), dim=1)


class ClipScore(FeatureMetric):
    """The mean cosine between images and their captions, neither clipped nor times 100: "clip",
    higher is better.

    detector  `ClipImages` of the same `source`, whose other half reads the captions.
    captions  The table that labels number.
    before    What is put before every caption.
    """

    tokens: Tensor
    total: Tensor
    num_samples: Tensor

    def __init__(
        self, detector: str, source: str, captions: Sequence[str], before: str, prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        from transformers import CLIPTokenizer  # noqa: PLC0415

        model = _clip(source)
        self.net, self.projection = model.text_model, model.text_projection
        tokenizer, length = (
            CLIPTokenizer.from_pretrained(source),
            model.config.text_config.max_position_embeddings,
        )
        fixed = {
            "padding": "max_length",
            "truncation": True,
            "max_length": length,
            "return_tensors": "pt",
        }
        texts = tokenizer([before + caption for caption in captions], **fixed)
        self.register_buffer("tokens", texts.input_ids, persistent=False)
        for state in ("total", "num_samples"):
            self.add_state(state, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        texts = F.normalize(
            self.projection(self.net(input_ids=self.tokens[labels]).pooler_output), dim=1
        )
        cosines = (features.double() * texts.double()).sum(1)
        self.total += (cosines * STEPS).round().long().sum()
        self.num_samples += len(features)

    def compute(self) -> dict[str, Tensor]:
        return {"clip": self.total.double() / STEPS / self.num_samples}


def _clip(source: str) -> Any:
    """A whole CLIPModel, frozen, in float32; its halves' own classes do not know how wide its
    projection is.

    Raises FileNotFoundError where there is none.
    """
    from transformers import CLIPModel  # noqa: PLC0415

    try:
        model = CLIPModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
    except OSError as error:  # of transformers, in several lines
        raise FileNotFoundError(
            f"there is no CLIP at {source}: no folder with model.safetensors, and the hub did not "
            "give "
            "it; type metric.suite.detectors.clip.source=DIR"
        ) from error
    return model.requires_grad_(False).eval()
