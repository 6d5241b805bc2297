"""Pipelines of diffusers' image transformers in small, with random weights, saved as published ones
are: network, VAE, scheduler, text encoders and tokenizers, loadable offline.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dmd2.nets.text.tiny import tiny_clip

FAMILIES = (
    *("sd3", "flux", "flux2", "chroma", "sana"),
    *("qwen", "zimage", "pixart", "auraflow", "dit"),
)
PIPELINES = {
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "flux2": "Flux2KleinPipeline",
    "chroma": "ChromaPipeline",
    "sana": "SanaPipeline",
    "qwen": "QwenImagePipeline",
    "zimage": "ZImagePipeline",
    "pixart": "PixArtSigmaPipeline",
    "auraflow": "AuraFlowPipeline",
    "dit": "DiTPipeline",
}
SIZES = dict.fromkeys(FAMILIES, 16) | {"sana": 32, "qwen": 32}
"""Height and width in pixels of an image whose latents are 8 x 8 (SANA's 16 x 16)."""
WIDTH = 16
"""Of the decoders' hidden states. T5's are 32, CLIP's 8 and 16."""

HEADS = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
SINGLE = {"in_channels": 16, "num_single_layers": 2, "axes_dims_rope": (4, 4, 8)}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": (
        "SD3Transformer2DModel",
        HEADS
        | {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 20,
            "pos_embed_max_size": 16,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0,),
        },
    ),
    "flux": (
        "FluxTransformer2DModel",
        HEADS
        | SINGLE
        | {"joint_attention_dim": 32, "pooled_projection_dim": 16, "guidance_embeds": True},
    ),
    "flux2": (
        "Flux2Transformer2DModel",
        HEADS
        | SINGLE
        | {
            "joint_attention_dim": 3 * WIDTH,
            "axes_dims_rope": (4, 4, 4, 4),
            "guidance_embeds": False,
        },
    ),
    "chroma": (
        "ChromaTransformer2DModel",
        HEADS
        | SINGLE
        | {
            "joint_attention_dim": 32,
            "approximator_num_channels": 64,
            "approximator_hidden_dim": 32,
            "approximator_layers": 1,
        },
    ),
    "sana": (
        "SanaTransformer2DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": WIDTH,
            "sample_size": 8,
            "patch_size": 1,
        },
    ),
    "qwen": (
        "QwenImageTransformer2DModel",
        HEADS
        | {
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (8, 4, 4),
        },
    ),
    "zimage": (
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": WIDTH,
            "axes_dims": [8, 4, 4],
            "axes_lens": [1024, 32, 32],
        },
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {
            "sample_size": 8,
            "num_layers": 2,
            "patch_size": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 3,
            "caption_channels": 32,
            "in_channels": 4,
            "out_channels": 8,
            "cross_attention_dim": 24,
            "use_additional_conditions": False,
        },
    ),
    "auraflow": (
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_mmdit_layers": 2,
            "num_single_dit_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 64,
        },
    ),
    "dit": (
        "DiTTransformer2DModel",
        {
            "sample_size": 8,
            "num_layers": 2,
            "patch_size": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "in_channels": 4,
            "out_channels": 8,
            "num_embeds_ada_norm": 1000,
        },
    ),
}
"""Class and arguments of each family's network."""

FLUX_SHIFT = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
FLOWS: dict[str, dict[str, Any]] = {
    "sd3": {"shift": 3.0},
    "flux": FLUX_SHIFT,
    "flux2": FLUX_SHIFT,
    "chroma": FLUX_SHIFT,
    "qwen": {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
    },
    "zimage": {"shift": 6.0},
    "auraflow": {"shift": 1.73},
}
"""Arguments of `FlowMatchEulerDiscreteScheduler`; the other families have other schedulers."""


def save_family(folder: Path, name: str, **transformer: Any) -> Path:
    """Write the pipeline of a family in `FAMILIES` to `folder`, the same weights in every call.

    transformer  Arguments of the network in place of those in `TRANSFORMERS`.
    """
    import diffusers  # noqa: PLC0415

    torch.manual_seed(0)
    kind, arguments = TRANSFORMERS[name]
    parts = {
        "transformer": getattr(diffusers, kind)(**arguments | transformer),
        "scheduler": _scheduler(name),
        "vae": _vae(name),
        **_texts(name),
    }
    index: dict[str, Any] = {"_class_name": PIPELINES[name]}
    for part, made in parts.items():
        if isinstance(made, nn.Module):
            randomize(made, GAINS.get(name, 1.0) if part == "transformer" else 1.0)
        made.save_pretrained(folder / part)
        library = type(made).__module__.split(".")[0]
        index[part] = [library, type(made).__name__]
    if name in ("sd3", "flux", "chroma"):  # parts that the pipelines may go without
        index["image_encoder"] = index["feature_extractor"] = [None, None]
    if name == "flux2":
        index["is_distilled"] = False
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


# At its first weights the network hardly reads the text.
GAINS = {"auraflow": 2.0, "qwen": 2.0, "flux": 2.0, "flux2": 2.0}


@torch.no_grad()
def randomize(model: nn.Module, gain: float) -> None:
    """Add noise to what starts as zeros or ones, as last layers do; multiply matrices by `gain`."""
    for parameter in model.parameters():
        if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
            parameter += 0.1 * torch.randn_like(parameter)
        if parameter.ndim == 2:
            parameter *= gain
    for key, buffer in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer += torch.rand_like(buffer)


def _scheduler(name: str) -> Any:
    from diffusers import (  # noqa: PLC0415
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

    if name in FLOWS:
        return FlowMatchEulerDiscreteScheduler(**FLOWS[name])
    if name == "sana":
        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    betas: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    if name == "pixart":
        return DPMSolverMultistepScheduler(**betas)
    return DDIMScheduler(**betas, clip_sample=False)


# Scale and shift of the latents.
VAES = {
    "sd3": (1.5305, 0.0609),
    "flux": (0.3611, 0.1159),
    "chroma": (0.3611, 0.1159),
    "zimage": (0.3611, 0.1159),
    "pixart": (0.13025, None),
    "auraflow": (0.13025, None),
    "dit": (0.18215, None),
}


def _vae(name: str) -> nn.Module:
    from diffusers import (  # noqa: PLC0415
        AutoencoderDC,
        AutoencoderKL,
        AutoencoderKLFlux2,
        AutoencoderKLQwenImage,
    )

    blocks: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    if name == "flux2":
        return AutoencoderKLFlux2(**blocks)
    if name == "qwen":
        return AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[-0.3, 0.1, 0.2, 0.0],
            latents_std=[1.5, 2.0, 0.8, 1.2],
        )
    if name == "sana":
        both: dict[str, Any] = {}
        for side in ("encoder", "decoder"):
            both |= {
                f"{side}_block_types": ("ResBlock", "EfficientViTBlock"),
                f"{side}_block_out_channels": (8, 8),
                f"{side}_layers_per_block": (1, 1),
                f"{side}_qkv_multiscales": ((), (5,)),
            }
        return AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
            **both,
        )
    scale, shift = VAES[name]
    if shift is not None:
        blocks |= {"shift_factor": shift, "use_quant_conv": False, "use_post_quant_conv": False}
    return AutoencoderKL(**blocks, scaling_factor=scale)


def _texts(name: str) -> dict[str, Any]:
    """The text encoders and tokenizers of a family, by their folders' names."""
    if name == "sd3":
        clips = [_clip(8, 8), _clip(16, 12)]
        models, tokenizers = zip(*clips, (_t5(), _t5_tokenizer()), strict=True)
    elif name == "flux":
        models, tokenizers = zip(_clip(16, None), (_t5(), _t5_tokenizer()), strict=True)
    elif name in TEXTS:
        make, tokenize = TEXTS[name]
        models, tokenizers = (make(),), (tokenize(),)
    else:
        return {}
    ends = ("", "_2", "_3")[: len(models)]
    return {f"text_encoder{end}": model for end, model in zip(ends, models, strict=True)} | {
        f"tokenizer{end}": tokenizer for end, tokenizer in zip(ends, tokenizers, strict=True)
    }


def _clip(hidden_size: int, projection_dim: int | None) -> tuple[nn.Module, Any]:
    from transformers import CLIPTextModelWithProjection  # noqa: PLC0415

    words = ["a", "red", "dot"]
    text = tiny_clip(words, hidden_size=hidden_size, num_layers=2, max_length=77)
    model = text.models[0]
    if projection_dim is not None:
        config = model.config
        config.projection_dim = projection_dim
        model = CLIPTextModelWithProjection(config)
    return model, text.tokenizers[0]


LETTERS = [chr(c) for c in range(33, 127)]
T5 = {
    "vocab_size": 98,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}


def _t5() -> nn.Module:
    from transformers import T5Config, T5EncoderModel  # noqa: PLC0415

    return T5EncoderModel(T5Config(**T5))


def _umt5() -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel  # noqa: PLC0415

    return UMT5EncoderModel(UMT5Config(**T5))


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer  # noqa: PLC0415

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    return T5Tokenizer(
        vocab=[*pieces, *((letter, -3.0) for letter in LETTERS)],
        extra_ids=0,
        model_max_length=512,
    )


def _gemma() -> nn.Module:
    from transformers import Gemma2Config, Gemma2Model  # noqa: PLC0415

    return Gemma2Model(
        Gemma2Config(
            vocab_size=6 + len(LETTERS) + 1,
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=0.2,
        )
    )


def _gemma_tokenizer() -> Any:
    from transformers import GemmaTokenizer  # noqa: PLC0415

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS, "\n"]
    return GemmaTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        model_max_length=8192,
        add_bos_token=True,
    )


DECODER = {
    "vocab_size": 264,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}


def _qwen3(num_layers: int) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    return Qwen3ForCausalLM(Qwen3Config(**DECODER, num_hidden_layers=num_layers, head_dim=8))


def _klein() -> nn.Module:
    return _qwen3(28)  # FLUX.2-klein reads the states 9, 18 and 27


def _qwen3_short() -> nn.Module:
    return _qwen3(3)


def _qwen_vl() -> nn.Module:
    from transformers import (  # noqa: PLC0415
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6}
    text = DECODER | {"num_hidden_layers": 2, "rope_parameters": rope}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": 2,
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=259,
            video_token_id=260,
            vision_start_token_id=261,
            vision_end_token_id=262,
        )
    )


def _qwen_tokenizer() -> Any:
    from transformers import AddedToken, Qwen2Tokenizer  # noqa: PLC0415
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # noqa: PLC0415

    symbols = [*bytes_to_unicode().values(), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], model_max_length=4096
    )
    # Else a template would fall apart into bytes.
    marks = ("<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.chat_template = CHAT
    return tokenizer


# As Qwen3's does, it leaves an empty thought where thinking is off.
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
TEXTS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "flux2": (_klein, _qwen_tokenizer),
    "chroma": (_t5, _t5_tokenizer),
    "sana": (_gemma, _gemma_tokenizer),
    "qwen": (_qwen_vl, _qwen_tokenizer),
    "zimage": (_qwen3_short, _qwen_tokenizer),
    "pixart": (_t5, _t5_tokenizer),
    "auraflow": (_umt5, _t5_tokenizer),
}
