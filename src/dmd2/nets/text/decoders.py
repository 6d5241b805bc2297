"""Language models as text encoders: Gemma (SANA), Qwen3 (FLUX.2-klein, Z-Image), Qwen2.5-VL
(Qwen-Image).

Templates, states and what is dropped are those of the pipelines in diffusers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.nets.text.encoder import (
    TextEncoder,
    ids_of,
    mask_of,
    tokenize,
    warn_of_cuts,
)


class Decoder(TextEncoder):
    """Base: tokens [N, num_before + L] of a caption in its template, and a decoder's states."""

    num_before = 0
    """Tokens that are read before those that are kept."""

    def __init__(self, tokenizer: Any, model: nn.Module, length: int) -> None:
        super().__init__([tokenizer], [model], length)

    def templated(self, caption: str) -> str:
        """The text that is tokenized for a caption."""
        raise NotImplementedError

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, num_before + L], pads as `tokenize` has them."""
        texts = [self.templated(caption) for caption in captions]
        tokens, num_cut = tokenize(self.tokenizers[0], texts, self.num_before + self.length)
        warn_of_cuts(num_cut, len(captions), self.length)
        return tokens

    def states(self, tokens: Tensor) -> Sequence[Tensor]:
        """The embeddings [B, L, D], and what each layer makes of them; the last one normalised."""
        return self.models[0](
            ids_of(tokens),
            attention_mask=mask_of(tokens).long(),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states


class SanaText(Decoder):
    """{"text": [B, L, D], "mask": [B, L]}: Gemma's last hidden state of an instruction and a
    caption, of which the first token and the last L - 1 are kept (Xie et al. 2024, section 2.3).

    No caption goes without the instruction.
    """

    def __init__(self, tokenizer: Any, model: nn.Module, length: int, instruction: str) -> None:
        tokenizer.padding_side = "right"
        super().__init__(tokenizer, model, length)
        self.instruction = instruction
        # Both begin with a start token, and the last of the instruction stays.
        self.num_before = len(tokenizer.encode(instruction)) - 2

    def templated(self, caption: str) -> str:
        """The instruction, and the caption in lower case."""
        return self.instruction + caption.lower().strip()

    def null_tokens(self, negative: str | None) -> Tensor:
        """Tokens [1, L] of a negative text or "", without the instruction."""
        text = (negative or self.nothing).lower().strip()
        tokens, num_cut = tokenize(self.tokenizers[0], [text], self.length)
        warn_of_cuts(num_cut, 1, self.length)
        return tokens

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens, with the instruction or without, to text and mask."""
        # In a row without the instruction these are all.
        kept = [0, *range(tokens.shape[1] - self.length + 1, tokens.shape[1])]
        mask = mask_of(tokens)[:, kept]
        return {"text": self.states(tokens)[-1][:, kept].float() * mask[..., None], "mask": mask}


class KleinText(Decoder):
    """{"text": [B, L, D of each layer side by side]}: three states of Qwen3, thinking off.

    layers  The states' numbers; 0 is the embeddings.
    """

    def __init__(
        self, tokenizer: Any, model: nn.Module, length: int, layers: Sequence[int] = (9, 18, 27)
    ) -> None:
        super().__init__(tokenizer, model, length)
        self.layers = tuple(layers)

    @property
    def recipe(self) -> str:
        """The kind, and its layers."""
        return f"{type(self).__name__} {self.layers}"

    def templated(self, caption: str) -> str:
        """A chat's first message, and an answer that begins without a thought."""
        return _chat(self.tokenizers[0], caption, enable_thinking=False)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, L] to text; the network reads the pads' states too."""
        states = self.states(tokens)
        return {"text": torch.cat([states[layer] for layer in self.layers], -1).float()}


class ZImageText(Decoder):
    """{"text": [B, L, D], "mask": [B, L]}: Qwen3's penultimate state, thinking on."""

    def __init__(self, tokenizer: Any, model: nn.Module, length: int) -> None:
        tokenizer.padding_side = "right"
        super().__init__(tokenizer, model, length)

    def templated(self, caption: str) -> str:
        """A chat's first message, and an answer that begins."""
        return _chat(self.tokenizers[0], caption, enable_thinking=True)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, L] to text and mask."""
        mask = mask_of(tokens)
        return {"text": self.states(tokens)[-2].float() * mask[..., None], "mask": mask}


class QwenImageText(Decoder):
    """{"text": [B, L, D], "mask": [B, L]}: Qwen2.5-VL's last state, less the system's message.

    template     A text with {} for the caption.
    num_dropped  Its first tokens, which are read and not kept.
    """

    nothing = " "

    def __init__(
        self, tokenizer: Any, model: nn.Module, length: int, template: str, num_dropped: int
    ) -> None:
        tokenizer.padding_side = "right"
        super().__init__(tokenizer, model, length)
        self.template, self.num_before = template, num_dropped

    def templated(self, caption: str) -> str:
        """The template with the caption in it."""
        return self.template.format(caption)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, dropped + L] to text and mask."""
        mask = mask_of(tokens)[:, self.num_before :]
        states = self.states(tokens)[-1][:, self.num_before :]
        return {"text": states.float() * mask[..., None], "mask": mask}


def _chat(tokenizer: Any, caption: str, **template: bool) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": caption}],
        tokenize=False,
        add_generation_prompt=True,
        **template,
    )
