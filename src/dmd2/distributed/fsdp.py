"""Networks cut into pieces by FSDP2, a piece a rank, and whole copies of them.

A network is cut inside its `Denoiser`, at `model`, whose `encode` and `decode` gather weights as
`forward` does.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from dmd2.distributed.process_group import world_size


def mesh_of(device: str, num_nodes: int) -> DeviceMesh:
    """All ranks: shards lie within a node, and several nodes are replicas of each other."""
    if num_nodes == 1:
        return init_device_mesh(device, (world_size(),))
    return init_device_mesh(
        device, (num_nodes, world_size() // num_nodes), mesh_dim_names=("replicate", "shard")
    )


def blocks_of(
    network: nn.Module, most: int, taps: tuple[str, ...], path: str = ""
) -> Iterator[nn.Module]:
    """The largest members of lists of layers with at most `most` parameters, and no tapped layer
    inside.

    A gradient may enter at a tapped layer's output, and must find the weights behind it gathered.
    """
    for name, child in network.named_children():
        inner = f"{path}{name}."
        size = sum(parameter.numel() for parameter in child.parameters())
        listed = isinstance(network, nn.ModuleList | nn.ModuleDict)
        if listed and 0 < size <= most and not any(tap.startswith(inner) for tap in taps):
            yield child
        else:
            yield from blocks_of(child, most, taps, inner)


def meta_copy(network: Any) -> Any:
    """A copy without weights, which are on the meta device; its buffers are where they were."""
    bare = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, bare)


def shard(part: Any, blocks: list[nn.Module], **options: Any) -> None:
    """Cut a network in place with FSDP2's `options`: its blocks, then the rest of it.

    Its weights are rank 0's, sent one at a time and then let go: on the other ranks it may be an
    meta_copy.
    """
    weights = {name: parameter.detach() for name, parameter in part.named_parameters()}
    bare = meta_copy(part)
    part.load_state_dict(
        bare.state_dict(), assign=True
    )  # or FSDP2 would keep pieces of its own until the first pass
    for block in blocks:
        fully_shard(block, **options)
    fully_shard(part, **options)
    part.meta_copy = (bare,)  # For `gathered`. In a tuple the registry does not see it.
    cut = {name: shard_of(weights.pop(name), like) for name, like in part.named_parameters()}
    part.load_state_dict(cut, strict=False, assign=True)
    for method in ("encode", "decode"):
        if hasattr(part, method):
            register_fsdp_forward_method(part, method)


def shard_of(whole: Tensor, like: Any) -> Tensor:
    """This rank's piece of rank 0's tensor, cut as `like` is; all ranks must ask for it."""
    device = like.device_mesh.device_type
    own = torch.empty_like(whole, device=device) if whole.is_meta else whole.to(device)
    return distribute_tensor(own, like.device_mesh, like.placements)


def parts(network: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """What `shard` has cut in a network: each with its parent, and its name there."""
    children = [
        (parent, *named) for parent in network.modules() for named in parent.named_children()
    ]
    return [
        child
        for child in children
        if isinstance(child[2], FSDPModule) and hasattr(child[2], "meta_copy")
    ]


def gathered(part: Any, device: torch.device) -> nn.Module:
    """A whole copy of what `shard` has cut, on `device`; all ranks must ask for it."""
    copied = copy.deepcopy(part.meta_copy[0])
    state = {
        name: unsharded_tensor(tensor).to(device) for name, tensor in part.state_dict().items()
    }
    copied.load_state_dict(state, assign=True)
    return copied.to(device)


def unsharded_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded(network: nn.Module) -> Iterator[None]:
    """A block in which a network is whole on every rank's device, as it is without shards; all
    ranks must enter.
    """
    found = parts(network)
    for parent, name, part in found:
        setattr(parent, name, gathered(part, next(part.parameters()).device))
    try:
        yield
    finally:
        for parent, name, part in found:
            setattr(parent, name, part)


def is_sharded(network: nn.Module) -> bool:
    """Whether a network's weights are cut."""
    return bool(parts(network))


def shard_like(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's whole state, of which every rank has a copy, cut as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(tensor: Tensor, like: Any) -> Tensor:
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)

    cut_state = {
        i: {
            name: cut(value, parameters[i]) if value.ndim else value
            for name, value in entry.items()
        }
        for i, entry in state["state"].items()
    }
    return {**state, "state": cut_state}
