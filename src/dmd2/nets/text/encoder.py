"""What every text encoder is: captions to tokens, and tokens to the condition of a network.

A pipeline is a folder or a name on the hub. Its encoders come from safetensors files, of `variant`
where it has one, and are held and computed in `dtype`. Conditions are float32 always.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.io.hub import config_in, dtype_of, named_in_errors, variant_of
from dmd2.io.pretrained import read_tokenizer, read_whole

Twin = Literal["empty", "zeros"]
"""The unconditional condition: the embedding of "", or zeros."""
AT_ONCE = 4096
"""Captions tokenized together: tokenizers hold some 10 kB of each."""


class TextEncoder(nn.Module):
    """Base: models behind their tokenizers.

    A condition has "text" [B, L, D], "pooled" [B, P] where the network reads a summary, and "mask"
    (bool [B, L]) where it reads one. L is the same for all captions, so that conditions join; where
    there is a mask, its true items come first and the text is zeros elsewhere.
    """

    twin: Twin = "empty"
    """The unconditional twin that the pipeline was trained with."""
    nothing = ""
    """The caption that stands for none."""
    stored = torch.bfloat16
    """In what a cache on disk holds the condition."""
    takes_loras = False
    """Whether a teacher's LoRA files may have parts of it, which an export then writes anew."""

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[nn.Module], length: int) -> None:
        super().__init__()
        self.tokenizers, self.models = tuple(tokenizers), nn.ModuleList(models)
        self.length = length

    @property
    def recipe(self) -> str:
        """What the condition depends on beside tokens and weights, for a cache's name."""
        return type(self).__name__

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, ...] of N captions; a warning counts those that lose words."""
        raise NotImplementedError

    def null_tokens(self, negative: str | None) -> Tensor:
        """Tokens [1, ...] of a negative text, or of what the network takes for no caption."""
        return self.tokens([self.nothing if negative is None else negative])

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, ...] to a condition, float32."""
        raise NotImplementedError


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[Tensor, int]:
    """Tokens int32 [N, length] of N texts, and how many texts were cut to that.

    A token i that only pads is ~i, which is negative: `ids_of` and `mask_of` take them apart.
    """
    parts, num_cut = [], 0
    for start in range(0, len(texts), AT_ONCE):
        some = list(texts[start : start + AT_ONCE])
        found = tokenizer(
            some, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        is_pad = found.attention_mask == 0
        # Only a row without padding can have been truncated. Those are tokenized again, since a
        # truncated result does not tell how long the text was.
        full = [text for text, pads in zip(some, is_pad, strict=True) if not pads.any()]
        uncut = tokenizer(full, verbose=False).input_ids if full else []
        num_cut += sum(len(ids) > length for ids in uncut)
        parts.append(torch.where(is_pad, ~found.input_ids, found.input_ids).int())
    return torch.cat(parts), num_cut


def ids_of(tokens: Tensor) -> Tensor:
    """The tokenizer's own numbers, of pads too."""
    return torch.where(tokens < 0, ~tokens, tokens)


def mask_of(tokens: Tensor) -> Tensor:
    """Bool: true where a token is none that pads."""
    return tokens >= 0


def warn_of_cuts(num_cut: int, num: int, length: int) -> None:
    """Warn once, with a count, where captions lose words."""
    if num_cut:
        warnings.warn(f"{num_cut} of {num} captions are cut to {length} tokens", stacklevel=3)


def tokenizer_of(source: str, name: str = "tokenizer") -> Any:
    """A pipeline's tokenizer, of the class that its own files name."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    return read_tokenizer(AutoTokenizer, source, name)


def model_of(kind: Any, source: str, name: str, variant: str | None, dtype: str) -> nn.Module:
    """A pipeline's text model, as the class `kind` of transformers.

    Raises FileNotFoundError where there is none, ValueError where it is of another class, or its
    files are not those of its config.
    """
    kinds = kinds_of(source, name)
    if kind.__name__ not in kinds:
        raise ValueError(
            f"the {name} of {source} is {' or '.join(kinds) or 'of no named class'}, and not a "
            f"{kind.__name__}"
        )
    stored_in, held_as = variant_of(source, f"{name}/model", variant), dtype_of(dtype)
    with named_in_errors(source, name):
        found: nn.Module = read_whole(
            kind,
            source,
            subfolder=name,
            use_safetensors=True,
            variant=stored_in,
            dtype=held_as,
            ignore_mismatched_sizes=True,  # they are refused by name
        )
    return found


def kinds_of(source: str, name: str) -> list[str]:
    """The classes that a pipeline's text model is said to be of."""
    named = config_in(source, f"{name}/config.json").get("architectures") or []
    return [str(kind) for kind in (named if isinstance(named, list) else [named])]
