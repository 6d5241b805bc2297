"""LoRA on a frozen denoiser (Hu et al. 2021): small trainable products beside its weights, by peft.

An adapted denoiser holds the frozen tensors of its base themselves, not copies: teacher, generator
and critic share one set. It saves and loads LoRA's weights alone.
"""

import copy
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.tensors import first_difference

PREFIX = re.compile(r"^(unet\.|transformer\.|base_model\.model\.)+")
"""What names of an exported LoRA's tensors may begin with: diffusers' folder, peft's wrapper."""


def require_peft() -> None:
    """Raise ImportError where the package is missing."""
    if importlib.util.find_spec("peft") is None:
        raise ImportError(
            "LoRA needs peft; type in the checkout: make install EXTRAS=dev,text, or "
            "pip install '.[text]'"
        )


def adapted(
    base: Denoiser, rank: int, alpha: int, targets: Sequence[str] | None = None
) -> Denoiser:
    """A denoiser in which the weight of every target layer is the frozen W + (alpha / rank) B A.

    B is zero at first, so it begins as `base`. `targets` are ends of layers' names, e.g. to_q; None
    takes those of the family that the network has.
    Raises ValueError where there is no layer of a name, or the rank is below 1, and ImportError
    without peft.
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

    # A target must be whole parts of a name: "q" does not match "to_q". The dot in front lets the
    # layers at the top match as well.
    names = [f".{name}" for name, _ in base.model.named_modules()]
    if targets is None:
        targets = [t for t in base.lora_targets if any(name.endswith(f".{t}") for name in names)]
    ends = sorted({name.rpartition(".")[2] for name in names if not name[-1].isdigit()} - {""})
    if rank < 1 or not targets:
        raise ValueError(
            f"LoRA wants a rank of at least 1 and layers, got {rank} and {list(targets)}; type "
            f"lora.generator.targets=[LAYER,...]; this network has {', '.join(ends)}"
        )
    # peft only complains where no target at all is found; one misspelt among several is silent.
    for target in targets:
        if not any(name.endswith(f".{target}") for name in names):
            raise ValueError(
                f"LoRA finds no layer called {target!r}; this network has {', '.join(ends)}"
            )
    denoiser = _sharing(base)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), denoiser.model
    )
    # Hooks, and not methods, since `base` may be of any class of denoiser.
    denoiser.register_state_dict_post_hook(_leave_base_out)
    denoiser.register_load_state_dict_pre_hook(_keep_base)
    return denoiser


def base_of(denoiser: Denoiser) -> Denoiser:
    """The denoiser without its LoRA, on the very same tensors; one that has none is its own base,
    as a copy.
    """
    base = _sharing(denoiser)
    for name, layer in list(layers(base.model)):  # a list: the loop changes what it walks over
        parent, _, own = name.rpartition(".")
        setattr(base.model.get_submodule(parent), own, layer.base_layer)
    return base


def _sharing(denoiser: Denoiser) -> Denoiser:
    """A copy that holds the same tensors."""
    # The second argument is deepcopy's memo: it takes what stands there as copied already.
    return copy.deepcopy(
        denoiser, {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
    )


def is_own(name: str) -> bool:
    """Whether a tensor of this name is LoRA's, and not of the network that it is on."""
    return ".lora_" in name


def _leave_base_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """After `state_dict`: drop the frozen tensors below `prefix`."""
    for name in [name for name in state if name.startswith(prefix) and not is_own(name)]:
        del state[name]


def _keep_base(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before `load_state_dict`: add the frozen tensors as they are, so that it can be strict."""
    # The children's state_dict, not the module's own, which has the hook that leaves them out.
    for child, part in module.named_children():
        state |= {
            name: x
            for name, x in part.state_dict(prefix=f"{prefix}{child}.").items()
            if not is_own(name)
        }


def layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers of a network, by the names that they have in its base."""
    yield from (
        (name, layer) for name, layer in network.named_modules() if hasattr(layer, "lora_A")
    )


def merged(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network with LoRA's products added: the names and shapes of its base's
    `state_dict`.
    """
    # peft moves an adapted layer's own weight from x.weight to x.base_layer.weight.
    state = {
        name.replace(".base_layer.", "."): x
        for name, x in network.state_dict().items()
        if not is_own(name)
    }
    for name, layer in layers(network):
        state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight("default")
    return state


def products(network: nn.Module) -> dict[str, Tensor]:
    """The factors A [rank, in] and B [out, rank] of every adapted layer, with alpha / rank
    multiplied into B.
    """
    # Then a reader of the file, as diffusers, needs no alpha: without one it takes a scale of 1.
    factors: dict[str, Tensor] = {}
    for name, layer in layers(network):
        # "default" is the name that peft gives to the only adapter there is.
        factors[f"{name}.lora_A.weight"] = layer.lora_A["default"].weight
        factors[f"{name}.lora_B.weight"] = layer.scaling["default"] * layer.lora_B["default"].weight
    return factors


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names is a LoRA as `products` names it, or as peft."""
    return any(name.endswith(".lora_A.weight") for name in names)


def load_products(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network's LoRA with factors as `products` gives them, e.g. of an exported student.

    tensors  Of the file `path`; the names may have diffusers' prefix (unet., transformer.) or
             peft's.

    Raises ValueError where the network has no LoRA, or one of other layers or another rank.
    """
    given = {PREFIX.sub("", name): x for name, x in tensors.items()}
    own = products(network)
    if not own:
        raise ValueError(
            f"{path} is a LoRA, and this network has none; type lora=generator, with the rank and "
            "targets of the file"
        )
    if differs := first_difference(own, given):
        name, ours, theirs = differs
        raise ValueError(
            f"{path} is a LoRA of other layers or another rank: of {name} it has {theirs}, and "
            f"this network {ours}; type lora.generator.rank=N lora.generator.targets=[...]"
        )
    with torch.no_grad():
        for name, layer in layers(network):
            layer.lora_A["default"].weight.copy_(given[f"{name}.lora_A.weight"])
            scaled = given[f"{name}.lora_B.weight"] / layer.scaling["default"]
            layer.lora_B["default"].weight.copy_(scaled)
