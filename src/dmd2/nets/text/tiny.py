"""A small CLIP text encoder with random weights and a vocabulary of given words: text to image with
no download.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from dmd2.diffusion.conditioning import Cond
from dmd2.nets.text.clip import CLIP
from dmd2.randomness import seeded

START, END = "<|startoftext|>", "<|endoftext|>"


class PooledCLIP(CLIP):
    """A CLIP that also gives "pooled" [B, D], the mean of its tokens: what SD3's network reads."""

    @property
    def recipe(self) -> str:
        """Another than CLIP's, whose embeddings are of the same weights without a mean."""
        return type(self).__name__

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, 1, L] to {"text": [B, L, D], "pooled": [B, D]}."""
        cond = super().forward(tokens)
        return {**cond, "pooled": cond["text"].mean(1)}


def tiny_clip(
    words: Sequence[str],
    hidden_size: int,
    num_layers: int,
    max_length: int,
    seed: int = 0,
    pooled: bool = False,
) -> CLIP:
    """An encoder of captions to {"text": [B, max_length, hidden_size]}; `pooled` adds their mean.

    Each of `words` (lower case letters) is one token; any other word is its letters, a token each.
    Nobody trains it: random features tell words apart, and the network learns what they mean.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: PLC0415

    # "</w>" ends a word in CLIP's byte-pair encoding, so every letter has two tokens.
    letters = [chr(c) for c in range(33, 127)]
    merges: list[Any] = list(dict.fromkeys(pair for word in words for pair in pairs(word)))
    # A dictionary, not a set: the order gives a token its number, which must be that of every run.
    tokens = dict.fromkeys(
        [START, END, *letters, *(f"{c}</w>" for c in letters), *(a + b for a, b in merges)]
    )
    tokenizer = CLIPTokenizer(
        {token: i for i, token in enumerate(tokens)}, merges, model_max_length=max_length
    )
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        max_position_embeddings=max_length,
        # The numbers of START and END above; the published encoders pad with END, too.
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_factor=1.0,
    )
    with seeded(seed, "text encoder"):
        return (PooledCLIP if pooled else CLIP)(tokenizer, CLIPTextModel(config))


def pairs(word: str) -> Iterator[tuple[str, str]]:
    """The merges of byte-pair encoding that build a word from its letters, left to right."""
    head, *rest = [*word[:-1], f"{word[-1]}</w>"]
    for letter in rest:
        yield head, letter
        head += letter
