"""ImageReward (Xu et al. 2023, arXiv:2304.05977): a BLIP that learned people's ratings of images.

Its text half looks at the image while it reads the prompt; a small head makes a number of that.
Needs the package transformers, and none of the authors'.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.io.files import locked
from dmd2.io.hub import named_in_errors
from dmd2.io.pretrained import read_tokenizer
from dmd2.io.replace import replacing
from dmd2.io.tensors import load_weights, read_tensors, save_tensors
from dmd2.metrics.base import MeanScore
from dmd2.metrics.clip_score import as_clip_sees
from dmd2.metrics.detectors import Detector
from dmd2.metrics.download import fetched
from dmd2.metrics.preprocessing import Square, picture
from dmd2.weights.image_reward import SIZES, read_image_reward

URL = "https://huggingface.co/THUDM/ImageReward/resolve/main/ImageReward.pt"
MAX_TOKENS = 35
# Mean and standard deviation of rewards that the published score is in units of.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072


def image_reward_folder(
    folder: str | Path, tokenizer: str, fetch: bool = True, sha256: str | None = None
) -> str:
    """A folder inside `folder` that `BlipImages` and `ImageReward` read; made where there is none.

    folder     Where ImageReward.pt lies, or is downloaded to if `fetch`: 1.8 GB, and as much for
               what is made of it.
    tokenizer  BERT's, a folder or a name on the hub.
    sha256     Of the file; its authors publish none, and None checks nothing.

    Raises FileNotFoundError where something is missing, ValueError where the file is of another
    network.
    """
    from transformers import BertTokenizer  # noqa: PLC0415

    made = Path(folder) / "ImageReward-v1.0"
    with locked(made):
        if not made.exists():
            parts = read_image_reward(fetched(folder, URL, sha256, fetch))
            with replacing(made) as half:
                try:
                    with named_in_errors(tokenizer, "BERT"):
                        read_tokenizer(BertTokenizer, tokenizer).save_pretrained(half)
                except OSError as error:
                    raise FileNotFoundError(
                        f"there is no tokenizer of BERT at {tokenizer}: no folder with vocab.txt, "
                        "and the hub did not give it; type "
                        "metric.suite.detectors.image_reward.source.tokenizer=DIR"
                    ) from error
                for part, tensors in parts.items():
                    save_tensors(tensors, half / f"{part}.safetensors")
    return str(made)


class BlipImages(Detector):
    """What BLIP's vision transformer sees in an image, a row for each patch: [B, N, D].

    source  The folder that `image_reward_folder` gives. Of an image the centre square is seen.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.net = _part(source, "vision")
        self.square = Square(self.net.config.image_size, "bicubic")

    def features(self, samples: Tensor) -> Tensor:
        """Rows [B, N, D], the whole image's first, of images uint8 [B, 1 or 3, H, W]."""
        x = as_clip_sees([self.square(picture(sample)) for sample in samples])
        rows: Tensor = self.net(pixel_values=x.to(samples.device)).last_hidden_state
        return rows


class ImageReward(MeanScore):
    """The mean reward of images for their captions, as "image_reward"; higher is better.

    In standard deviations of the rewards of people's prompts, about -2 to 2.

    detector  The name of a `BlipImages` of the same `source`.
    source    The folder that `image_reward_folder` gives.
    captions  The table that labels number.
    """

    tokens: Tensor
    mask: Tensor

    reports = ("image_reward",)

    def __init__(
        self, detector: str, source: str, captions: Sequence[str], prefix: str = ""
    ) -> None:
        super().__init__(detector, prefix)
        from transformers import BertTokenizer  # noqa: PLC0415

        self.net, self.reward = _part(source, "text"), _part(source, "reward")
        fixed = {"padding": "max_length", "truncation": True, "max_length": MAX_TOKENS}
        tokenizer = read_tokenizer(BertTokenizer, source)
        texts = tokenizer(list(captions), **fixed, return_tensors="pt")
        self.register_buffer("tokens", texts.input_ids, persistent=False)
        self.register_buffer("mask", texts.attention_mask, persistent=False)

    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Rewards [B] of what `BlipImages` saw, [B, N, D], for the captions numbered `labels`."""
        read = self.net(
            input_ids=self.tokens[labels],
            attention_mask=self.mask[labels],
            encoder_hidden_states=features,
            encoder_attention_mask=torch.ones(features.shape[:2], device=features.device),
            is_decoder=False,  # it looks at all words
        )
        reward: Tensor = self.reward(read.last_hidden_state[:, 0]).squeeze(1)
        return (reward - REWARD_MEAN) / REWARD_STD


def _part(source: str, part: str) -> Any:
    """The "vision", "text" or "reward" network of a folder, frozen, in float32."""
    from transformers import (  # noqa: PLC0415
        BlipTextConfig,
        BlipTextModel,
        BlipVisionConfig,
        BlipVisionModel,
    )

    file = Path(source) / f"{part}.safetensors"
    sizes = SIZES[part](read_tensors(file))
    if part == "vision":
        network: Any = BlipVisionModel(BlipVisionConfig(**sizes))
    elif part == "text":
        network = BlipTextModel(BlipTextConfig(**sizes), add_pooling_layer=False)
    else:
        # With nothing between them: its dropouts are of its training.
        layers = {name: nn.Linear(*widths) for name, widths in sizes.items()}
        network = nn.Sequential(OrderedDict(layers))
    load_weights(network, file)
    return network.requires_grad_(False).eval()
