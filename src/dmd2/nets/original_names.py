"""What layers of diffusers' networks are called in their authors' own code, as LoRA files of other
trainers name them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
QKV = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")
# i is a block's number. Several names here are one layer there: its rows, in this order.
SD3 = {
    "joint_blocks.{i}.x_block.attn.qkv": [f"transformer_blocks.{{i}}.attn.{x}" for x in QKV],
    "joint_blocks.{i}.x_block.attn2.qkv": [f"transformer_blocks.{{i}}.attn2.{x}" for x in QKV],
    "joint_blocks.{i}.context_block.attn.qkv": [
        f"transformer_blocks.{{i}}.attn.{x}" for x in ADDED
    ],
    "joint_blocks.{i}.x_block.attn.proj": ["transformer_blocks.{i}.attn.to_out.0"],
    "joint_blocks.{i}.x_block.attn2.proj": ["transformer_blocks.{i}.attn2.to_out.0"],
    "joint_blocks.{i}.context_block.attn.proj": ["transformer_blocks.{i}.attn.to_add_out"],
    "joint_blocks.{i}.x_block.mlp.fc1": ["transformer_blocks.{i}.ff.net.0.proj"],
    "joint_blocks.{i}.x_block.mlp.fc2": ["transformer_blocks.{i}.ff.net.2"],
    "joint_blocks.{i}.context_block.mlp.fc1": ["transformer_blocks.{i}.ff_context.net.0.proj"],
    "joint_blocks.{i}.context_block.mlp.fc2": ["transformer_blocks.{i}.ff_context.net.2"],
    "joint_blocks.{i}.x_block.adaLN_modulation.1": ["transformer_blocks.{i}.norm1.linear"],
}
FLUX = {
    "double_blocks.{i}.img_attn.qkv": [f"transformer_blocks.{{i}}.attn.{x}" for x in QKV],
    "double_blocks.{i}.txt_attn.qkv": [f"transformer_blocks.{{i}}.attn.{x}" for x in ADDED],
    "double_blocks.{i}.img_attn.proj": ["transformer_blocks.{i}.attn.to_out.0"],
    "double_blocks.{i}.txt_attn.proj": ["transformer_blocks.{i}.attn.to_add_out"],
    "double_blocks.{i}.img_mlp.0": ["transformer_blocks.{i}.ff.net.0.proj"],
    "double_blocks.{i}.img_mlp.2": ["transformer_blocks.{i}.ff.net.2"],
    "double_blocks.{i}.txt_mlp.0": ["transformer_blocks.{i}.ff_context.net.0.proj"],
    "double_blocks.{i}.txt_mlp.2": ["transformer_blocks.{i}.ff_context.net.2"],
    "double_blocks.{i}.img_mod.lin": ["transformer_blocks.{i}.norm1.linear"],
    "double_blocks.{i}.txt_mod.lin": ["transformer_blocks.{i}.norm1_context.linear"],
    "single_blocks.{i}.linear1": [
        *(f"single_transformer_blocks.{{i}}.attn.{x}" for x in QKV),
        "single_transformer_blocks.{i}.proj_mlp",
    ],
    "single_blocks.{i}.linear2": ["single_transformer_blocks.{i}.proj_out"],
    "single_blocks.{i}.modulation.lin": ["single_transformer_blocks.{i}.norm.linear"],
}


def no_names(network: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """No name of any layer: of networks whose authors' names are not known here."""
    yield from ()


def names_by(
    patterns: Mapping[str, Sequence[str]], network: nn.Module
) -> Iterator[tuple[str, list[str]]]:
    """Names of layers in their authors' code, each with the layers that its rows are here.

    patterns  As `SD3`. Layers whose rows are in another order there are left out.
    """
    names = {name for name, _ in network.named_modules()}
    numbers = {found[1] for name in names if (found := re.search(r"blocks\.(\d+)", name))}
    for pattern, parts in patterns.items():
        for i in numbers:
            here = [part.format(i=i) for part in parts]
            if names.issuperset(here):
                yield pattern.format(i=i), here


def unet_names(network: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """The same of a U-Net of Stable Diffusion's kind."""
    names = {name for name, _ in network.named_modules()}
    num: Any = network.config["layers_per_block"]  # type: ignore[index]
    for name in names:
        if (original := unet_name(name, names, num)) is not None:
            yield original, [name]


def unet_name(name: str, names: set[str], num: int) -> str | None:
    """The name that a module of a U-Net has in Stable Diffusion's own code; None where it is
    another.

    names  All modules' names; num: the resnets of a block on the way down.
    """
    if name in ENDS:
        return ENDS[name]
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        is_resnet, j, rest = found[1] == "resnets", int(found[2]), found[3]
        return f"middle_block.{2 * j if is_resnet else 1}.{_inside(rest, is_resnet)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.([a-z]+)\.(\d+)\.(.+)", name)
    if found is None:
        return None
    way, i, part, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part == "downsamplers":
        return f"input_blocks.{(i + 1) * (num + 1)}.0.op"
    if part == "upsamplers":
        has_attention = f"up_blocks.{i}.attentions" in names
        return f"output_blocks.{i * (num + 1) + num}.{1 + has_attention}.conv"
    number = i * (num + 1) + j
    block = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
    is_resnet = part == "resnets"
    return f"{block}.{0 if is_resnet else 1}.{_inside(rest, is_resnet)}"


def _inside(name: str, is_resnet: bool) -> str:
    return RESNET.get(name, name) if is_resnet else name
