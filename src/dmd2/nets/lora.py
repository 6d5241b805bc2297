"""LoRA on a frozen denoiser (Hu et al. 2021): small trainable products beside its weights, by peft.

What is adapted holds the frozen tensors of what it was made on, not copies, and saves and loads its
own alone.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from dmd2.diffusion.denoiser import Denoiser


def adapted(base: Denoiser, rank: int, alpha: int, targets: Sequence[str]) -> Denoiser:
    """A denoiser that begins as `base`: every adapted layer's weight is the frozen W + (alpha /
    rank) B A, B = 0.

    targets  Layers of the network by their names' ends, e.g. to_q; raises ValueError where there is
             none of a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("LoRA needs peft; type: pip install 'dmd2[text]'") from error
    names = [f".{name}" for name, _ in base.model.named_modules()]
    if rank < 1 or not targets:
        raise ValueError(
            f"LoRA wants a rank of at least 1 and targets, got {rank} and {targets}; type "
            "lora=generator"
        )
    for target in targets:
        if not any(name.endswith(f".{target}") for name in names):
            ends = sorted(
                {name.rpartition(".")[2] for name in names if not name[-1].isdigit()} - {""}
            )
            raise ValueError(
                f"LoRA finds no layer called {target!r}; this network has {', '.join(ends)}"
            )
    denoiser = _sharing(base)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), denoiser.model
    )
    denoiser.register_state_dict_post_hook(_leave_base_out)
    denoiser.register_load_state_dict_pre_hook(_keep_base)
    return denoiser


def base_of(denoiser: Denoiser) -> Denoiser:
    """What a denoiser was made on, with the very same tensors; one without LoRA is its own base."""
    base = _sharing(denoiser)
    for name, layer in list(layers(base.model)):
        parent, _, own = name.rpartition(".")
        setattr(base.model.get_submodule(parent), own, layer.base_layer)
    return base


def _sharing(denoiser: Denoiser) -> Denoiser:
    """A copy that holds the same tensors."""
    return copy.deepcopy(
        denoiser, {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
    )


def is_own(name: str) -> bool:
    """Whether a tensor of this name is LoRA's, and not of the network that it is on."""
    return ".lora_" in name


def _leave_base_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and not is_own(name)]:
        del state[name]


def _keep_base(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for child, part in module.named_children():
        state |= {
            name: x
            for name, x in part.state_dict(prefix=f"{prefix}{child}.").items()
            if not is_own(name)
        }


def layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers of a network, by the names that they have in what it was made on."""
    yield from (
        (name, layer) for name, layer in network.named_modules() if hasattr(layer, "lora_A")
    )


def merged(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network, those of LoRA added to what they lie on: as many and so called as
    without it.
    """
    state = {
        name.replace(".base_layer.", "."): x
        for name, x in network.state_dict().items()
        if not is_own(name)
    }
    for name, layer in layers(network):
        state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight("default")
    return state


def products(network: nn.Module) -> dict[str, Tensor]:
    """The two factors of every adapted layer, alpha / rank multiplied into B: who reads them needs
    no alpha.
    """
    factors: dict[str, Tensor] = {}
    for name, layer in layers(network):
        factors[f"{name}.lora_A.weight"] = layer.lora_A["default"].weight
        factors[f"{name}.lora_B.weight"] = layer.scaling["default"] * layer.lora_B["default"].weight
    return factors
