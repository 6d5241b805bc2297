"""CLIP text encoders of Stable Diffusion and SDXL: captions to tokens, tokens to a condition."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.io.hub import SWITCH, check_keys, config_in, or_null
from dmd2.io.pretrained import read_tokenizer
from dmd2.nets.text.encoder import TextEncoder, Twin, ids_of, model_of, tokenize, warn_of_cuts

ZEROS = "force_zeros_for_empty_prompt"
"""The key of an SDXL pipeline's index that says what no caption is: zeros, or an empty text."""


class CLIP(TextEncoder):
    """Stable Diffusion 1.5's encoder: {"text": the last hidden state [B, L, D]} of one
    `CLIPTextModel` behind its tokenizer.
    """

    stored = torch.float32
    takes_loras = True

    def __init__(self, tokenizer: Any, model: Any) -> None:
        super().__init__([tokenizer], [model], clip_length(tokenizer, model))

    @property
    def recipe(self) -> str:
        """Nothing: the weights tell one CLIP from two."""
        return ""

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, K, L] of N captions by K tokenizers, padded or truncated to L.

        One warning counts the captions that lose words.
        """
        found = [tokenize(tokenizer, captions, self.length) for tokenizer in self.tokenizers]
        warn_of_cuts(found[0][1], len(captions), self.length)
        return torch.stack([ids_of(tokens) for tokens, _ in found], 1)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, 1, L] to {"text": [B, L, D]}."""
        return {"text": self.models[0](tokens[:, 0]).last_hidden_state.float()}


class CLIPPair(CLIP):
    """SDXL's two encoders: {"text": [B, L, D1 + D2], "pooled": [B, P], "time_ids": [B, 6]}.

    "text" is their penultimate hidden states side by side, "pooled" the second's projection, and
    "time_ids" sizes and crops: every image counts as `size` x `size` pixels, uncropped.
    """

    time_ids: Tensor

    def __init__(
        self,
        tokenizers: Sequence[Any],
        models: Sequence[nn.Module],
        size: int,
        twin: Twin = "zeros",
    ) -> None:
        super().__init__(tokenizers[0], models[0])
        # In place of the base's single ones, under the same names.
        self.tokenizers, self.models = tuple(tokenizers), nn.ModuleList(models)
        self.twin = twin
        # Original height and width, top and left of the crop, target height and width (Podell et
        # al. 2023, section 2.2). A buffer: a copy from the host in each pass would wait for the
        # device.
        self.register_buffer("time_ids", time_ids_of((size, size)), persistent=False)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, 2, L] to the three parts of SDXL's condition."""
        outputs = [
            model(ids, output_hidden_states=True)
            for model, ids in zip(self.models, tokens.unbind(1), strict=True)
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], -1).float()
        return {
            "text": text,
            "pooled": outputs[-1].text_embeds.float(),
            "time_ids": self.time_ids.expand(len(tokens), -1),
        }


def time_ids_of(size: Sequence[int]) -> Tensor:
    """What SDXL is told of an uncropped image of height and width `size`, float32 [6]: original
    size, top and left of the crop, target size (Podell et al. 2023, section 2.2).
    """
    return torch.tensor([*size, 0, 0, *size]).float()


def clip(source: str, variant: str | None = None, dtype: str = "float32") -> CLIP:
    """The encoder of a Stable Diffusion 1.5 pipeline.

    Raises FileNotFoundError where there is no such pipeline, ValueError where it is another.
    """
    from transformers import CLIPTextModel  # noqa: PLC0415

    if config_in(source, "text_encoder/config.json").get("use_attention_mask"):
        raise ValueError(
            f"the text_encoder of {source} says use_attention_mask: it reads no padding, which is "
            "not supported here"
        )
    return CLIP(
        clip_tokenizer(source, "tokenizer"),
        model_of(CLIPTextModel, source, "text_encoder", variant, dtype),
    )


def clip_pair(
    source: str, size: int, variant: str | None = None, dtype: str = "float32"
) -> CLIPPair:
    """The two encoders of an SDXL pipeline, for images of `size` x `size` pixels.

    Raises FileNotFoundError where there is no such pipeline.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection  # noqa: PLC0415

    # Only the second has the projection that "pooled" reads.
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    models = [model_of(kind, source, name, variant, dtype) for name, kind in kinds.items()]
    tokenizers = [clip_tokenizer(source, name) for name in ("tokenizer", "tokenizer_2")]
    # SDXL's pipeline takes zeros where its index says nothing.
    index = config_in(source, "model_index.json")
    check_keys(f"model_index.json of {source}", index, {ZEROS: or_null(SWITCH)})
    has_zeros = index.get(ZEROS, True)
    return CLIPPair(tokenizers, models, size, "zeros" if has_zeros else "empty")


def clip_length(tokenizer: Any, model: Any) -> int:
    """The tokens that a CLIP reads."""
    # A tokenizer that was saved without a length says 1e30: the network's positions count.
    return min(tokenizer.model_max_length, model.config.max_position_embeddings)


def clip_tokenizer(source: str, name: str) -> Any:
    """A pipeline's tokenizer of a CLIP, in the folder `name`."""
    from transformers import CLIPTokenizer  # noqa: PLC0415

    return read_tokenizer(CLIPTokenizer, source, name)
