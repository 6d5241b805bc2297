"""CLIP score: cosine of an image and its caption (Hessel et al. 2021, arXiv:2104.08718).

As DMD2 reports it: the plain cosine, neither clipped at 0 nor scaled.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dmd2.io.hub import named_in_errors
from dmd2.io.pretrained import read_tokenizer, read_whole
from dmd2.metrics.base import MeanScore
from dmd2.metrics.detectors import Detector
from dmd2.metrics.preprocessing import Preprocessing, Square, picture, pixels

# CLIP's own, by channel, of pixels in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def as_clip_sees(images: Sequence[Image.Image]) -> Tensor:
    """Float32 [B, 3, H, W] of RGB images of one size, standardised as CLIP's training images."""
    x = torch.stack([pixels(image) for image in images]) / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class ClipImages(Detector):
    """CLIP embeddings [B, D] of unit length, after a `preprocessing` of each image.

    source         A folder, or a name on the hub; safetensors files only.
    preprocessing  What is done to an image before CLIP's own resize.

    Needs the package transformers. Raises FileNotFoundError where there is no such model.
    """

    def __init__(self, source: str, preprocessing: Preprocessing) -> None:
        super().__init__()
        model = _clip(source)
        self.net, self.projection = model.vision_model, model.visual_projection
        self.preprocessing = preprocessing
        self.square = Square(model.config.vision_config.image_size, "bicubic")

    def features(self, samples: Tensor) -> Tensor:
        """Unit embeddings [B, D] of images uint8 [B, 1 or 3, H, W]."""
        images = [self.square(self.preprocessing(picture(sample))) for sample in samples]
        x = as_clip_sees(images).to(samples.device)
        return F.normalize(self.projection(self.net(pixel_values=x).pooler_output), dim=1)


class ClipScore(MeanScore):
    """The mean cosine of images and their captions, reported as "clip"; higher is better.

    detector  The name of a `ClipImages` of the same `source`.
    source    The model whose text half reads the captions.
    captions  The table that labels number.
    before    Put before every caption, e.g. "A photo depicts ".
    """

    tokens: Tensor

    reports = ("clip",)

    def __init__(
        self, detector: str, source: str, captions: Sequence[str], before: str, prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        from transformers import CLIPTokenizer  # noqa: PLC0415

        # A second copy of the model: a metric does not know the detectors, only their features.
        model = _clip(source)
        self.scale = self.scale_of(model)
        self.net, self.projection = model.text_model, model.text_projection
        tokenizer, length = (
            read_tokenizer(CLIPTokenizer, source),
            model.config.text_config.max_position_embeddings,
        )
        fixed = {
            "padding": "max_length",
            "truncation": True,
            "max_length": length,
            "return_tensors": "pt",
        }
        # Tokens are kept and not embeddings: 30,000 captions are encoded batch by batch.
        texts = tokenizer([before + caption for caption in captions], **fixed)
        self.register_buffer("tokens", texts.input_ids, persistent=False)

    def scale_of(self, model: Any) -> float:
        """What a cosine is multiplied by: nothing of the model, by default."""
        return self.scale

    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cosines [B] of image embeddings [B, D] and the captions numbered `labels` [B]."""
        texts = F.normalize(
            self.projection(self.net(input_ids=self.tokens[labels]).pooler_output), dim=1
        )
        # Both have unit length, so their inner product is the cosine (Hessel et al. 2021).
        return (features.double() * texts.double()).sum(1)


def _clip(source: str) -> Any:
    """A CLIPModel, frozen, in float32; raises FileNotFoundError where there is none."""
    # Both halves are loaded: the classes of one half do not know the projection's width.
    from transformers import CLIPModel  # noqa: PLC0415

    try:
        with named_in_errors(source, "CLIP"):
            model = read_whole(CLIPModel, source, use_safetensors=True, dtype=torch.float32)
    except OSError as error:
        # transformers' own message has several lines and does not say which option to type.
        raise FileNotFoundError(
            f"there is no CLIP at {source}: no folder with model.safetensors, and the hub did not "
            "give it; type metric.suite.detectors.NAME.source=DIR"
        ) from error
    return model.requires_grad_(False).eval()
