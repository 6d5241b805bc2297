"""CLIP text encoders of transformers: captions to tokens, and tokens to the condition of a U-Net,
in float32.

A pipeline is a folder or a name on the hub. Its encoders come from safetensors files, of `variant`
where there are such, and are held and computed as `dtype`.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.io.hub import dtype_of, file_of, variant_of

AT_ONCE = 4096
"""Captions tokenized together: tokenizers hold some 10 kB of each."""


class CLIP(nn.Module):
    """One tokenizer and its `CLIPTextModel`: {"text": its last hidden state [B, L, D]}, as Stable
    Diffusion 1.5.
    """

    def __init__(self, tokenizer: Any, model: nn.Module) -> None:
        super().__init__()
        self.tokenizers, self.models = (tokenizer,), nn.ModuleList([model])

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """int32 [N, K, L], a row a caption and tokenizer; longer captions are cut, and one warning
        counts them.
        """
        length = self.tokenizers[0].model_max_length
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
        return {"text": self.models[0](tokens[:, 0]).last_hidden_state.float()}


class CLIPPair(CLIP):
    """SDXL's two encoders: their penultimate states side by side, the second's projection pooled,
    sizes and crops.

    {"text": [B, L, D1 + D2], "pooled": [B, P], "time_ids": [B, 6]}; every image counts as `size`
    squared, uncropped.
    """

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[nn.Module], size: int) -> None:
        super().__init__(tokenizers[0], models[0])
        self.tokenizers, self.models = tuple(tokenizers), nn.ModuleList(models)
        self.size = size

    def forward(self, tokens: Tensor) -> Cond:
        outputs = [
            model(ids, output_hidden_states=True)
            for model, ids in zip(self.models, tokens.unbind(1), strict=True)
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], -1).float()
        time_ids = torch.tensor(
            [self.size, self.size, 0, 0, self.size, self.size], device=tokens.device
        )
        return {
            "text": text,
            "pooled": outputs[-1].text_embeds.float(),
            "time_ids": time_ids.float().expand(len(tokens), -1),
        }


def clip(source: str, variant: str | None = None, dtype: str = "float32") -> CLIP:
    """That of a pipeline."""
    from transformers import CLIPTextModel  # noqa: PLC0415

    return CLIP(
        _tokenizer(source, "tokenizer"),
        _model(CLIPTextModel, source, "text_encoder", variant, dtype),
    )


def clip_pair(
    source: str, size: int, variant: str | None = None, dtype: str = "float32"
) -> CLIPPair:
    """Those of a pipeline."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection  # noqa: PLC0415

    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    models = [_model(kind, source, name, variant, dtype) for name, kind in kinds.items()]
    return CLIPPair(
        [_tokenizer(source, name) for name in ("tokenizer", "tokenizer_2")], models, size
    )


def _tokenizer(source: str, name: str) -> Any:
    from transformers import CLIPTokenizer  # noqa: PLC0415

    return CLIPTokenizer.from_pretrained(source, subfolder=name)


def _model(kind: Any, source: str, name: str, variant: str | None, dtype: str) -> nn.Module:
    file_of(source, f"{name}/config.json")
    found: nn.Module = kind.from_pretrained(
        source,
        subfolder=name,
        use_safetensors=True,
        variant=variant_of(source, f"{name}/model", variant),
        dtype=dtype_of(dtype),
    )
    return found
