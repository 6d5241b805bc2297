"""From a pipeline of diffusers to its text encoders, by the family of its transformer.

source   A folder, or a name on the hub.
variant  Another storage of the weights, e.g. "fp16".
dtype    In what weights are held and computed.
length   Tokens of a caption's condition; None is what the pipeline takes.

All raise FileNotFoundError where there is no such pipeline, and ValueError where its text model is
of another class.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from dmd2.io.hub import config_in
from dmd2.nets.text.clip import clip_tokenizer
from dmd2.nets.text.decoders import KleinText, QwenImageText, SanaText, ZImageText
from dmd2.nets.text.encoder import kinds_of, model_of, tokenizer_of
from dmd2.nets.text.t5 import (
    AuraFlowText,
    ChromaText,
    FluxText,
    PixArtText,
    SD3Text,
    SD3TextWithoutT5,
)


def pixart_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> PixArtText:
    """The encoder of a PixArt pipeline, of 120 tokens for Alpha, 300 for Sigma."""
    is_alpha = config_in(source, "model_index.json").get("_class_name") == "PixArtAlphaPipeline"
    model = _t5(source, "text_encoder", variant, dtype)
    return PixArtText(tokenizer_of(source), model, length or (120 if is_alpha else 300))


def chroma_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> ChromaText:
    """The encoder of a Chroma pipeline, of 512 tokens."""
    model = _t5(source, "text_encoder", variant, dtype)
    return ChromaText(tokenizer_of(source), model, length or 512)


def auraflow_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> AuraFlowText:
    """The encoder of an AuraFlow pipeline, of 256 tokens."""
    from transformers import UMT5EncoderModel  # noqa: PLC0415

    model = model_of(UMT5EncoderModel, source, "text_encoder", variant, dtype)
    return AuraFlowText(tokenizer_of(source), model, length or 256)


def flux_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> FluxText:
    """The encoders of a FLUX.1 pipeline, T5 of 512 tokens."""
    from transformers import CLIPTextModel  # noqa: PLC0415

    clip = model_of(CLIPTextModel, source, "text_encoder", variant, dtype)
    t5 = _t5(source, "text_encoder_2", variant, dtype)
    tokenizers = [clip_tokenizer(source, "tokenizer"), tokenizer_of(source, "tokenizer_2")]
    return FluxText(tokenizers, [clip, t5], length or 512)


def sd3_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> SD3Text:
    """The encoders of a Stable Diffusion 3 pipeline, T5 of 256 tokens, or zeros where the
    pipeline's index has no `text_encoder_3`.
    """
    from transformers import CLIPTextModelWithProjection  # noqa: PLC0415

    names = ("text_encoder", "text_encoder_2")
    clips = [model_of(CLIPTextModelWithProjection, source, n, variant, dtype) for n in names]
    tokenizers = [clip_tokenizer(source, name) for name in ("tokenizer", "tokenizer_2")]
    library, _ = config_in(source, "model_index.json").get("text_encoder_3") or (None, None)
    if library is None:
        width = config_in(source, "transformer/config.json")["joint_attention_dim"]
        return SD3TextWithoutT5(tokenizers, clips, length or 256, width)
    t5 = _t5(source, "text_encoder_3", variant, dtype)
    return SD3Text([*tokenizers, tokenizer_of(source, "tokenizer_3")], [*clips, t5], length or 256)


def sana_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> SanaText:
    """The encoder of a SANA pipeline, of 300 tokens."""
    from diffusers import SanaPipeline  # noqa: PLC0415
    from transformers import Gemma2ForCausalLM, Gemma2Model  # noqa: PLC0415

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    model = _body(Gemma2Model, Gemma2ForCausalLM, source, variant, dtype)
    return SanaText(tokenizer_of(source), model, length or 300, "\n".join(lines))


def klein_text(
    source: str,
    variant: str | None = None,
    dtype: str = "float32",
    length: int | None = None,
    layers: Sequence[int] = (9, 18, 27),
) -> KleinText:
    """The encoder of a FLUX.2-klein pipeline, of 512 tokens."""
    model = _qwen3(source, variant, dtype)
    return KleinText(tokenizer_of(source), model, length or 512, layers)


def zimage_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> ZImageText:
    """The encoder of a Z-Image pipeline, of 512 tokens."""
    return ZImageText(tokenizer_of(source), _qwen3(source, variant, dtype), length or 512)


def qwen_image_text(
    source: str, variant: str | None = None, dtype: str = "float32", length: int | None = None
) -> QwenImageText:
    """The encoder of a Qwen-Image pipeline, of 512 tokens beside those that it drops."""
    from diffusers import QwenImagePipeline  # noqa: PLC0415
    from transformers import Qwen2_5_VLForConditionalGeneration  # noqa: PLC0415

    # Without its parts a pipeline is but its constants.
    empty: Any = QwenImagePipeline(None, None, None, None, None)
    template, num_dropped = empty.prompt_template_encode, empty.prompt_template_encode_start_idx
    whole: Any = model_of(
        Qwen2_5_VLForConditionalGeneration, source, "text_encoder", variant, dtype
    )
    # Captions alone need neither the eyes nor the next word.
    model = whole.model.language_model
    return QwenImageText(tokenizer_of(source), model, length or 512, template, num_dropped)


def _t5(source: str, name: str, variant: str | None, dtype: str) -> nn.Module:
    from transformers import T5EncoderModel  # noqa: PLC0415

    return model_of(T5EncoderModel, source, name, variant, dtype)


def _qwen3(source: str, variant: str | None, dtype: str) -> nn.Module:
    from transformers import Qwen3ForCausalLM, Qwen3Model  # noqa: PLC0415

    return _body(Qwen3Model, Qwen3ForCausalLM, source, variant, dtype)


def _body(body: Any, whole: Any, source: str, variant: str | None, dtype: str) -> nn.Module:
    """A decoder without the head that names the next word, whether it was saved with it or not."""
    if whole.__name__ in kinds_of(source, "text_encoder"):
        found: Any = model_of(whole, source, "text_encoder", variant, dtype)
        return found.model
    return model_of(body, source, "text_encoder", variant, dtype)
