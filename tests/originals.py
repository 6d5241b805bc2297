"""Tiny pipelines as one file in their authors' names: the inverse of diffusers' tables."""

import re
from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.nets.original_names import SD3, unet_name

NORMS = {"norm1": "in_layers.0", "norm2": "out_layers.0"}
ENDS = {"conv_norm_out": "out.0"}
VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}


def ldm_unet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net of one resnet a block, in Stable Diffusion's names."""
    modules = {name.rpartition(".")[0] for name in state}
    modules |= {
        part
        for m in modules
        for part in (m.split(".attentions")[0] + ".attentions",)
        if ".attentions." in m
    }
    found = {}
    for name, x in state.items():
        module, _, end = name.rpartition(".")
        original = ENDS.get(module) or unet_name(module, modules, 1)
        assert original is not None, name
        if ".resnets." in module:
            parent, _, last = original.rpartition(".")
            original = f"{parent}.{NORMS.get(last, last)}" if last in NORMS else original
        found[f"model.diffusion_model.{original}.{end}"] = x
    return found


def ldm_vae(state: dict[str, Tensor], num_blocks: int) -> dict[str, Tensor]:
    """A VAE in Stable Diffusion's names, where attention is of 1x1 convolutions."""
    found = {}
    for name, x in state.items():
        is_attention = ".attentions." in name and x.ndim == 2
        for here, there in VAE.items():
            name = name.replace(here, there)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
        name = re.sub(
            r"up_blocks\.(\d)(\.resnets)?",
            lambda m: f"up.{num_blocks - 1 - int(m[1])}" + ".block" * bool(m[2]),
            name,
        )
        found[f"first_stage_model.{name}"] = x[:, :, None, None] if is_attention else x
    return found


def sd3_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An SD3 transformer in its authors' names."""
    ends = {
        "pos_embed.proj": "x_embedder.proj",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
    }
    norms = {"norm_q": "x_block.attn.ln_q", "norm_k": "x_block.attn.ln_k"}
    norms |= {"norm_added_q": "context_block.attn.ln_q", "norm_added_k": "context_block.attn.ln_k"}
    left, found = dict(state), {}
    found["pos_embed"] = left.pop("pos_embed.pos_embed")
    for here, there in ends.items():
        for end in ("weight", "bias"):
            found[f"{there}.{end}"] = left.pop(f"{here}.{end}")
    for i in {name.split(".")[1] for name in left if name.startswith("transformer_blocks.")}:
        for there, parts in SD3.items():
            for end in ("weight", "bias"):
                rows = [left.pop(f"{part.format(i=i)}.{end}", None) for part in parts]
                if rows[0] is not None:
                    found[f"{there.format(i=i)}.{end}"] = torch.cat(rows)
    for name in list(left):
        x = left.pop(name)
        block = re.match(r"transformer_blocks\.(\d+)\.(.+)", name)
        if block and (norm := re.fullmatch(r"attn(2?)\.(norm_\w+)\.weight", block[2])):
            original = norms[norm[2]].replace("attn", f"attn{norm[1]}")
            found[f"joint_blocks.{block[1]}.{original}.weight"] = x
            continue
        end = name.rpartition(".")[2]
        is_last = block and f"transformer_blocks.{block[1]}.attn.to_add_out.weight" not in state
        if is_last or name.startswith("norm_out."):  # here scale comes first
            x = torch.cat(x.chunk(2)[::-1])
        if block:
            assert "norm1_context.linear" in name, name
            found[f"joint_blocks.{block[1]}.context_block.adaLN_modulation.1.{end}"] = x
        else:
            assert name.startswith("norm_out.linear"), name
            found[f"final_layer.adaLN_modulation.1.{end}"] = x
    return {f"model.diffusion_model.{name}": x for name, x in found.items()}


def save_single_file(folder: Path, out: Path, parts: tuple[str, ...] = ("vae", "text")) -> Path:
    """Write a saved pipeline as one file: its network, and with `parts` VAE and text encoder."""
    if (folder / "transformer").is_dir():
        weights = folder / "transformer/diffusion_pytorch_model.safetensors"
        tensors = sd3_names(read_tensors(weights))
    else:
        tensors = ldm_unet(read_tensors(folder / "unet/diffusion_pytorch_model.safetensors"))
    if "vae" in parts:
        vae = read_tensors(folder / "vae/diffusion_pytorch_model.safetensors")
        tensors |= ldm_vae(vae, 2)
    if "text" in parts:
        for name, x in read_tensors(folder / "text_encoder/model.safetensors").items():
            plain = name.removeprefix("text_model.")
            tensors[f"cond_stage_model.transformer.text_model.{plain}"] = x
    save_tensors({name: x.contiguous().clone() for name, x in tensors.items()}, out)
    return out
