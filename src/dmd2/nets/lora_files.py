"""LoRA files of other trainers, in the names of diffusers, peft and kohya, merged into a network's
weights: W += scale * alpha / rank * B A (Hu et al. 2021).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dmd2.io.files import parse_json, read_json
from dmd2.io.tensors import read_metadata, read_tensors
from dmd2.nets.pipeline_families import original_names

FACTOR = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?P<peft>[AB])(?:\.default)?"
    r"|[._]lora(?:_linear_layer)?[._](?P<way>down|up))\.weight"
)
"""A factor's name: of peft, of kohya, and of diffusers before peft."""
NETWORK = re.compile(
    r"(base_model\.model\.|unet\.|transformer\.|(model\.)?diffusion_model\."
    r"|lora_unet_|lora_transformer_)+"
)
"""What a network's names begin with, and below a text encoder's, with its number."""
TEXT = re.compile(r"(?:base_model\.model\.)?(?:text_encoder(?:_(\d))?\.|lora_te(\d?)_)")
OTHERS = {
    r"dora_scale|lora_magnitude_vector": "DoRA (weights that are normalised)",
    r"\.hada_": "LoHa (a product of two products)",
    r"\.lokr_": "LoKr (a Kronecker product)",
    r"\.lora_mid\.": "LoCon with a third factor (Tucker)",
    r"\.oft_|\.boft_": "OFT (rotations)",
}
"""Kinds of adapters that are no LoRA, by what their names have."""


@dataclass(frozen=True)
class Factors:
    """The factors A [rank, in, ...] and B [out, rank, ...] of a layer, as `name` in the file."""

    name: str
    a: Tensor
    b: Tensor
    alpha: float

    def delta(self) -> Tensor:
        """alpha / rank * B A as [out, in * ...], in float32."""
        product = self.b.float().flatten(1) @ self.a.float().flatten(1)
        return self.alpha / self.a.shape[0] * product


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA's layers by their names without a prefix: of the network, and of each text encoder by
    its number.
    """

    path: Path
    network: dict[str, Factors]
    texts: dict[int, dict[str, Factors]]


def read_lora(path: Path) -> LoRAFile:
    """A LoRA from a .safetensors file.

    Raises FileNotFoundError where there is none, ValueError that names the first key that is no
    part of a LoRA, e.g. of DoRA.
    """
    tensors = read_tensors(path)
    for pattern, what in OTHERS.items():
        if found := [name for name in sorted(tensors) if re.search(pattern, name)]:
            raise ValueError(
                f"{path} is no plain LoRA, but {what}: {found[0]}; only LoRA is merged"
            )
    halves: dict[str, dict[str, Tensor]] = {}
    for name in sorted(tensors):
        found_factor = FACTOR.fullmatch(name)
        if found_factor is None and not name.endswith(".alpha"):
            raise ValueError(f"{path} is no LoRA that is known here: what is {name}?")
        if found_factor is None:
            layer, part = name.removesuffix(".alpha"), "alpha"
        else:
            is_a = "A" in (found_factor["peft"] or "") or found_factor["way"] == "down"
            layer, part = found_factor["layer"], "a" if is_a else "b"
        halves.setdefault(layer, {})[part] = tensors[name]
    if not halves:
        raise ValueError(f"{path} has no tensors, and is no LoRA")
    network: dict[str, Factors] = {}
    texts: dict[int, dict[str, Factors]] = {}
    default = _default_alpha(path)
    for layer, parts in halves.items():
        if not {"a", "b"} <= parts.keys():
            raise ValueError(f"{path} is damaged: of {layer} it has no two factors")
        a, b = parts["a"], parts["b"]
        if a.ndim < 2 or b.ndim < 2 or b.flatten(1).shape[1] != a.shape[0]:
            raise ValueError(
                f"{path} is damaged: the factors of {layer} are {tuple(a.shape)} and "
                f"{tuple(b.shape)}, which have no common rank"
            )
        alpha = float(parts["alpha"]) if "alpha" in parts else default
        factors = Factors(layer, a, b, a.shape[0] if alpha is None else alpha)
        if text := TEXT.match(layer):
            own = texts.setdefault(int(text[1] or text[2] or 1) - 1, {})
            own[layer[text.end() :]] = factors
        else:
            prefix = NETWORK.match(layer)
            network[layer[prefix.end() if prefix else 0 :]] = factors
    return LoRAFile(path, network, texts)


def _default_alpha(path: Path) -> float | None:
    """The alpha of all layers without one of their own, as peft and diffusers write it beside the
    tensors; None where they do not, and it is the rank.

    Raises ValueError where alpha differs by layer, or is not what is divided by the rank.
    """
    beside = path.with_name("adapter_config.json")
    if text := read_metadata(path).get("lora_adapter_metadata"):
        said = parse_json(text.encode(), f"the metadata of {path}")
    elif beside.is_file():
        said = read_json(beside)
    else:
        return None
    # diffusers puts the part's name in front: transformer.lora_alpha.
    plain = {name.rpartition(".")[2]: value for name, value in said.items()}
    for key in ("alpha_pattern", "use_rslora", "use_dora"):
        if plain.get(key):
            raise ValueError(f"{path} has {key}={plain[key]}, which is not supported")
    alphas = {value for name, value in said.items() if name.rpartition(".")[2] == "lora_alpha"}
    if len(alphas) > 1:
        raise ValueError(f"{path} has parts of different lora_alpha, which is not supported")
    return float(alphas.pop()) if alphas else None


def layer_names(network: nn.Module) -> dict[str, list[str]]:
    """The linear and convolutional layers of a network by all names that files have for them.

    Names have "_" for ".", as kohya's have. Several layers are the rows of one in the file.
    """
    found: dict[str, list[str]] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found[_flat(name)] = [name]
            if name.endswith(".to_out.0"):  # diffusers before peft
                found[_flat(name.removesuffix(".0"))] = [name]
    for original, names in original_names(network):
        if all(_flat(name) in found for name in names):
            found.setdefault(_flat(original), names)
    return found


def _flat(name: str) -> str:
    # Before peft, diffusers put LoRA on an attention's "processor". transformers 5 has CLIP without
    # its wrapper `text_model`.
    plain = name.replace(".processor.", ".").replace(".", "_")
    return plain.removeprefix("text_model_")


TEXT_NAMES = {
    "self_attn_to_q": "self_attn_q_proj",
    "self_attn_to_k": "self_attn_k_proj",
    "self_attn_to_v": "self_attn_v_proj",
    "self_attn_to_out": "self_attn_out_proj",
}
"""What diffusers before peft calls layers of CLIP."""


def placed(
    network: nn.Module, layers: Mapping[str, Factors], path: Path
) -> list[tuple[Factors, list[nn.Parameter]]]:
    """The factors of a file, each with the weights that are the rows of its product, in order.

    Raises ValueError that names the first layer which the network has not, or has in another size.
    """
    kind, known, found = type(network).__name__, layer_names(network), []
    for name, factors in layers.items():
        flat = _flat(name)
        for old, new in TEXT_NAMES.items():
            flat = flat.replace(old, new)
        if flat not in known:
            raise ValueError(
                f"{path} is a LoRA of another network: {factors.name} is no layer of this {kind}"
            )
        weights = [network.get_parameter(f"{layer}.weight") for layer in known[flat]]
        made = factors.b.shape[0], factors.a[0].numel()
        wanted = sum(len(weight) for weight in weights), weights[0][0].numel()
        if made != wanted:
            raise ValueError(
                f"{path} is a LoRA of a network of other sizes: {factors.name} makes {made[0]} of "
                f"{made[1]} numbers, and the layer of this {kind} {wanted[0]} of {wanted[1]}"
            )
        found.append((factors, weights))
    return found


@torch.no_grad()
def merge(network: nn.Module, layers: Mapping[str, Factors], scale: float, path: Path) -> None:
    """Add scale * alpha / rank * B A to the weights of a network, for every layer of a file.

    Raises as `placed`, with no weight changed.
    """
    for factors, weights in placed(network, layers, path):
        rows = (scale * factors.delta()).split([len(weight) for weight in weights])
        for weight, delta in zip(weights, rows, strict=True):
            weight.add_(delta.view_as(weight).to(weight))


def merge_texts(models: Sequence[nn.Module], lora: LoRAFile, scale: float) -> None:
    """Add a LoRA's products to the text encoders that it is of, in a pipeline's order.

    Raises ValueError where there is no such encoder, or it is another.
    """
    for i, layers in lora.texts.items():
        if i >= len(models):
            first = next(iter(layers.values())).name
            raise ValueError(
                f"{lora.path} is a LoRA of another pipeline: {first} is of text encoder {i + 1}, "
                f"and this teacher has {len(models)}"
            )
        merge(models[i], layers, scale, lora.path)
