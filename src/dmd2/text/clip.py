"""CLIP text encoders of transformers: captions to tokens, and tokens to the condition of a U-Net."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.conditioning import Cond
from dmd2.pipelines import file_of


class CLIP(nn.Module):
    """One tokenizer and its `CLIPTextModel`: {"text": its last hidden state [B, L, D]}, as Stable Diffusion 1.5."""

    def __init__(self, tokenizer: Any, model: nn.Module) -> None:
        super().__init__()
        self.tokenizers, self.models = (tokenizer,), nn.ModuleList([model])

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """int64 [N, K, L], a row a caption and tokenizer; longer captions are cut, and one warning counts them."""
        length = self.tokenizers[0].model_max_length
        uncut = self.tokenizers[0](list(captions), verbose=False).input_ids
        if num_cut := sum(len(ids) > length for ids in uncut):
            warnings.warn(f"{num_cut} of {len(captions)} captions are cut to {length} tokens", stacklevel=2)
        fixed = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return torch.stack([tokenizer(list(captions), **fixed).input_ids for tokenizer in self.tokenizers], 1)

    def forward(self, tokens: Tensor) -> Cond:
        return {"text": self.models[0](tokens[:, 0]).last_hidden_state}


class CLIPPair(CLIP):
    """SDXL's two encoders: their penultimate states side by side, the second's projection pooled, sizes and crops.

    {"text": [B, L, D1 + D2], "pooled": [B, P], "time_ids": [B, 6]}; every image counts as `size` squared, uncropped.
    """

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[nn.Module], size: int) -> None:
        super().__init__(tokenizers[0], models[0])
        self.tokenizers, self.models = tuple(tokenizers), nn.ModuleList(models)
        self.size = size

    def forward(self, tokens: Tensor) -> Cond:
        outputs = [
            model(ids, output_hidden_states=True) for model, ids in zip(self.models, tokens.unbind(1), strict=True)
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        time_ids = torch.tensor([self.size, self.size, 0, 0, self.size, self.size], device=tokens.device)
        return {
            "text": text,
            "pooled": outputs[-1].text_embeds,
            "time_ids": time_ids.float().expand(len(tokens), -1),
        }


def clip(source: str) -> CLIP:
    """That of a pipeline, a folder or a name on the hub; weights from safetensors files, in float32."""
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: PLC0415

    file_of(source, "text_encoder/config.json")
    model = CLIPTextModel.from_pretrained(
        source, subfolder="text_encoder", use_safetensors=True, dtype=torch.float32
    )  # fmt: skip
    return CLIP(CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"), model)


def clip_pair(source: str, size: int) -> CLIPPair:
    """Those of a pipeline, a folder or a name on the hub; weights from safetensors files, in float32."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer  # noqa: PLC0415

    file_of(source, "text_encoder_2/config.json")
    folders = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    models = [
        kind.from_pretrained(source, subfolder=name, use_safetensors=True, dtype=torch.float32)
        for name, kind in folders.items()
    ]
    tokenizers = [CLIPTokenizer.from_pretrained(source, subfolder=name) for name in ("tokenizer", "tokenizer_2")]
    return CLIPPair(tokenizers, models, size)
