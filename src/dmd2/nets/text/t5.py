"""T5 encoders of transformers (PixArt, Chroma, AuraFlow), and T5 beside CLIP (FLUX.1, SD3).

How each family pads, masks and joins is that of its pipeline in diffusers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dmd2.diffusion.conditioning import Cond
from dmd2.nets.text.clip import clip_length
from dmd2.nets.text.encoder import (
    TextEncoder,
    ids_of,
    mask_of,
    tokenize,
    warn_of_cuts,
)


class T5(TextEncoder):
    """Base: tokens [N, L] of one T5, which reads no pads."""

    def __init__(self, tokenizer: Any, model: nn.Module, length: int) -> None:
        super().__init__([tokenizer], [model], length)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, L], pads as `tokenize` has them."""
        tokens, num_cut = tokenize(self.tokenizers[0], captions, self.length)
        warn_of_cuts(num_cut, len(captions), self.length)
        return tokens

    def states(self, tokens: Tensor) -> Tensor:
        """The last hidden state, float32 [B, L, D]; those of pads mean nothing."""
        mask = mask_of(tokens).long()
        return self.models[0](ids_of(tokens), attention_mask=mask).last_hidden_state.float()


class PixArtText(T5):
    """{"text": [B, L, D], "mask": [B, L]} of captions in lower case."""

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, L], pads as `tokenize` has them."""
        return super().tokens([caption.lower().strip() for caption in captions])

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, L] to text and mask."""
        mask = mask_of(tokens)
        return {"text": self.states(tokens) * mask[..., None], "mask": mask}


class ChromaText(T5):
    """{"text": [B, L, D], "mask": [B, L]}; the mask keeps the caption and the first pad."""

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, L] to text and mask."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        mask = positions <= mask_of(tokens).sum(1, keepdim=True)
        return {"text": self.states(tokens) * mask[..., None], "mask": mask}


class AuraFlowText(T5):
    """{"text": [B, L, D]}, zeros where a caption is padded; the network reads them unmasked."""

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, L] to text."""
        return {"text": self.states(tokens) * mask_of(tokens)[..., None]}


class CLIPsAndT5(TextEncoder):
    """Base: tokens [N, K of CLIP side by side, then L of T5], where pads are tokens as others.

    Without a T5 there are as many tokenizers as CLIPs, and tokens of CLIP alone.
    """

    takes_loras = True
    num_clips: int

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[nn.Module], length: int) -> None:
        super().__init__(tokenizers, models, length)
        clips = zip(self.tokenizers[: self.num_clips], self.models, strict=False)
        self.lengths = [clip_length(tokenizer, model) for tokenizer, model in clips]
        self.lengths += [length] * (len(self.models) - self.num_clips)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, sum of lengths]; captions count as cut where the last one cuts them."""
        pairs = zip(self.tokenizers, self.lengths, strict=True)
        found = [tokenize(tokenizer, captions, length) for tokenizer, length in pairs]
        warn_of_cuts(found[-1][1], len(captions), self.lengths[-1])
        return torch.cat([ids_of(tokens) for tokens, _ in found], 1)


class FluxText(CLIPsAndT5):
    """{"text": T5's last hidden state [B, L, D], "pooled": CLIP's summary [B, P]}."""

    num_clips = 1

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens of both to text and pooled."""
        (clip, t5), (short, long) = self.models, tokens.split(self.lengths, 1)
        return {
            "text": t5(long).last_hidden_state.float(),
            "pooled": clip(short).pooler_output.float(),
        }


class SD3Text(CLIPsAndT5):
    """{"text": [B, K + L, D], "pooled": [B, P1 + P2]} of two CLIPs and T5.

    "text" is the CLIPs' penultimate states side by side, padded by zeros to the width of T5, and
    then T5's last hidden state; "pooled" is the projections of both.
    """

    num_clips = 2

    def long(self, tokens: Tensor) -> Tensor:
        """T5's part of the text, float32 [B, L, D]."""
        return self.models[2](tokens[:, sum(self.lengths[:2]) :]).last_hidden_state.float()

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens of all to text and pooled."""
        first, second, *_ = tokens.split(self.lengths, 1)
        pairs = zip(self.models, (first, second), strict=False)
        found = [model(ids, output_hidden_states=True) for model, ids in pairs]
        short = torch.cat([output.hidden_states[-2] for output in found], -1).float()
        long = self.long(tokens)
        return {
            "text": torch.cat([pad(short, (0, long.shape[-1] - short.shape[-1])), long], 1),
            "pooled": torch.cat([output.text_embeds for output in found], -1).float(),
        }


class SD3TextWithoutT5(SD3Text):
    """`SD3Text` with zeros in T5's place, of the width that the network reads."""

    def __init__(
        self, tokenizers: Sequence[Any], models: Sequence[nn.Module], length: int, width: int
    ) -> None:
        super().__init__(tokenizers, models, length)
        self.width = width

    def long(self, tokens: Tensor) -> Tensor:
        """Zeros [B, L, width]."""
        return torch.zeros(len(tokens), self.length, self.width, device=tokens.device)
