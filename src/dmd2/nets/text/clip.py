"""CLIP text encoders of transformers: captions to tokens, and tokens to the condition of a U-Net.

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

Twin = Literal["empty", "zeros"]
"""The unconditional condition: the embedding of "", or zeros."""
AT_ONCE = 4096
"""Captions tokenized together: tokenizers hold some 10 kB of each."""


class CLIP(nn.Module):
    """Stable Diffusion 1.5's encoder: {"text": the last hidden state [B, L, D]} of one
    `CLIPTextModel` behind its tokenizer.
    """

    twin: Twin = "empty"
    """The unconditional twin that the pipeline was trained with."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        super().__init__()
        # A tokenizer that was saved without a length says 1e30: the network's positions count.
        self.length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        # As many tokenizers as models; subclasses have several.
        self.tokenizers, self.models = (tokenizer,), nn.ModuleList([model])

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokens int32 [N, K, L] of N captions by K tokenizers, padded or truncated to L.

        One warning counts the captions that lose words.
        """
        length = self.length
        fixed = {
            "padding": "max_length",
            "truncation": True,
            "max_length": length,
            "return_tensors": "pt",
        }
        parts, num_cut = [], 0
        for start in range(0, len(captions), AT_ONCE):
            some = list(captions[start : start + AT_ONCE])
            first, *others = (tokenizer(some, **fixed) for tokenizer in self.tokenizers)
            # Only a row without padding can have been truncated. Those are tokenized again, since
            # a truncated result does not tell how long the caption was.
            full = [
                caption
                for caption, mask in zip(some, first.attention_mask, strict=True)
                if mask.all()
            ]
            uncut = self.tokenizers[0](full, verbose=False).input_ids if full else []
            num_cut += sum(len(ids) > length for ids in uncut)
            parts.append(torch.stack([found.input_ids for found in (first, *others)], 1).int())
        if num_cut:
            warnings.warn(
                f"{num_cut} of {len(captions)} captions are cut to {length} tokens", stacklevel=2
            )
        return torch.cat(parts)

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, 1, L] to {"text": [B, L, D]}."""
        return {"text": self.models[0](tokens[:, 0]).last_hidden_state.float()}


class CLIPPair(CLIP):
    """SDXL's two encoders: {"text": [B, L, D1 + D2], "pooled": [B, P], "time_ids": [B, 6]}.

    "text" is their penultimate hidden states side by side, "pooled" the second's projection, and
    "time_ids" sizes and crops: every image counts as `size` x `size` pixels, uncropped.
    """

    def __init__(
        self,
        tokenizers: Sequence[Any],
        models: Sequence[nn.Module],
        size: int,
        twin: Twin = "zeros",
    ) -> None:
        super().__init__(tokenizers[0], models[0])
        self.twin = twin
        # In place of the base's single ones, under the same names.
        self.tokenizers, self.models = tuple(tokenizers), nn.ModuleList(models)
        self.size = size

    def forward(self, tokens: Tensor) -> Cond:
        """Tokens [B, 2, L] to the three parts of SDXL's condition."""
        outputs = [
            model(ids, output_hidden_states=True)
            for model, ids in zip(self.models, tokens.unbind(1), strict=True)
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], -1).float()
        # Original height and width, top and left of the crop, target height and width (Podell et
        # al. 2023, section 2.2).
        time_ids = torch.tensor(
            [self.size, self.size, 0, 0, self.size, self.size], device=tokens.device
        )
        return {
            "text": text,
            "pooled": outputs[-1].text_embeds.float(),
            "time_ids": time_ids.float().expand(len(tokens), -1),
        }


def clip(source: str, variant: str | None = None, dtype: str = "float32") -> CLIP:
    """The encoder of a Stable Diffusion 1.5 pipeline.

    Raises FileNotFoundError where there is no such pipeline.
    """
    from transformers import CLIPTextModel  # noqa: PLC0415

    return CLIP(
        _tokenizer(source, "tokenizer"),
        _model(CLIPTextModel, source, "text_encoder", variant, dtype),
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
    models = [_model(kind, source, name, variant, dtype) for name, kind in kinds.items()]
    tokenizers = [_tokenizer(source, name) for name in ("tokenizer", "tokenizer_2")]
    # SDXL's pipeline takes zeros where its index says nothing.
    has_zeros = config_in(source, "model_index.json").get("force_zeros_for_empty_prompt", True)
    return CLIPPair(tokenizers, models, size, "zeros" if has_zeros else "empty")


def _tokenizer(source: str, name: str) -> Any:
    from transformers import CLIPTokenizer  # noqa: PLC0415

    with named_in_errors(source, name):
        return CLIPTokenizer.from_pretrained(source, subfolder=name)


def _model(kind: Any, source: str, name: str, variant: str | None, dtype: str) -> nn.Module:
    named = config_in(source, f"{name}/config.json").get("architectures") or []
    kinds = named if isinstance(named, list) else [named]
    if kind.__name__ not in kinds:
        raise ValueError(
            f"the {name} of {source} is {' or '.join(map(str, kinds)) or 'of no named class'}, and "
            f"not a {kind.__name__}"
        )
    stored_in, held_as = variant_of(source, f"{name}/model", variant), dtype_of(dtype)
    with named_in_errors(source, name):
        found: nn.Module = kind.from_pretrained(
            source, subfolder=name, use_safetensors=True, variant=stored_in, dtype=held_as
        )
    return found
