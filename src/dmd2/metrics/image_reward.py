"""ImageReward (Xu et al. 2023, arXiv:2304.05977): a BLIP that learned people's ratings of images.

Its text half looks at the image while it reads the prompt; a small head makes a number of that.
Needs the package transformers, and none of the authors'.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.io.pretrained import read_tokenizer
from dmd2.io.shown import in_one_line
from dmd2.io.tensors import first_difference, read_tensors, save_tensors
from dmd2.metrics.base import MeanScore
from dmd2.metrics.clip_score import as_clip_sees
from dmd2.metrics.detectors import Detector
from dmd2.metrics.download import converted
from dmd2.metrics.preprocessing import Square, picture
from dmd2.weights.image_reward import read_image_reward, reward_sizes, text_sizes, vision_sizes

URL = "https://huggingface.co/THUDM/ImageReward/resolve/main/ImageReward.pt"
MAX_TOKENS = 35
# Mean and standard deviation of rewards that the published score is in units of.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
NUM_ADDED = 2  # words of BLIP's own, behind BERT's
TOKENIZER = "metric.suite.detectors.image_reward.source.tokenizer=DIR"


def image_reward_folder(
    folder: str | Path, tokenizer: str, fetch: bool = True, sha256: str | None = None
) -> str:
    """A folder inside `folder` that `BlipImages` and `ImageReward` read; made where there is none.

    folder     Where ImageReward.pt lies, or is downloaded to if `fetch`: 1.8 GB, and as much for
               what is made of it.
    tokenizer  BERT's, uncased: a folder or a name on the hub.
    sha256     Of the file; its authors publish none, and None checks nothing.

    Raises FileNotFoundError where something is missing, ValueError where the file or the tokenizer
    is of another network.
    """
    return converted(folder, "ImageReward-v1.0", URL, sha256, fetch, partial(_convert, tokenizer))


def _convert(source: str, file: Path, folder: Path) -> None:
    from transformers import BertTokenizer  # noqa: PLC0415

    parts = read_image_reward(file)
    for part, tensors in parts.items():
        _check(file, part, tensors)
    try:
        tokenizer = read_tokenizer(BertTokenizer, source)
    except OSError as error:
        raise FileNotFoundError(
            f"there is no tokenizer of BERT at {source}: no folder with vocab.txt, and the hub did "
            f"not give it; type {TOKENIZER}"
        ) from error
    num_words = text_sizes(parts["text"])["vocab_size"] - NUM_ADDED
    if len(tokenizer) != num_words:
        raise ValueError(
            f"the tokenizer of {source} has {len(tokenizer):,} words, and {file} reads another's "
            f"{num_words:,}; type {TOKENIZER}"
        )
    tokenizer.save_pretrained(folder)
    for part, tensors in parts.items():
        save_tensors(tensors, folder / f"{part}.safetensors")


def _check(file: Path, part: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where tensors of a file are not those of a whole network."""
    try:
        with torch.device("meta"):
            network = NETWORKS[part](tensors)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{file} is no ImageReward: its {part} cannot be built ({in_one_line(error):.99})"
        ) from error
    if differs := first_difference(network.state_dict(), tensors):
        raise ValueError(f"{file} is no ImageReward: its {part}'s {differs[0]} differs")


class BlipImages(Detector):
    """What BLIP's vision transformer sees in an image, a row for each patch: [B, N, D].

    source  The folder that `image_reward_folder` gives. Of an image the centre square is seen.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.net = _network(source, "vision")
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

        self.net, self.reward = _network(source, "text"), _network(source, "reward")
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


def _network(source: str, part: str) -> Any:
    """A part of the network in a folder, frozen, in float32."""
    tensors = read_tensors(Path(source) / f"{part}.safetensors")
    network = NETWORKS[part](tensors)
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()


def _vision(tensors: Mapping[str, Tensor]) -> nn.Module:
    from transformers import BlipVisionConfig, BlipVisionModel  # noqa: PLC0415

    return BlipVisionModel(BlipVisionConfig(**vision_sizes(tensors)))


def _text(tensors: Mapping[str, Tensor]) -> nn.Module:
    from transformers import BlipTextConfig, BlipTextModel  # noqa: PLC0415

    return BlipTextModel(BlipTextConfig(**text_sizes(tensors)), add_pooling_layer=False)


def _reward(tensors: Mapping[str, Tensor]) -> nn.Module:
    # With nothing between its layers: the dropouts are of its training.
    sizes = reward_sizes(tensors)
    if not sizes or [*sizes.values()][-1][1] != 1:
        raise ValueError("it does not end in one number")
    return nn.Sequential(OrderedDict({name: nn.Linear(*size) for name, size in sizes.items()}))


NETWORKS: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    "vision": _vision,
    "text": _text,
    "reward": _reward,
}
"""By the part's name: a network of the sizes of its tensors."""
