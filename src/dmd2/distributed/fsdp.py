"""FSDP2 (`fully_shard`): shard networks over ranks, gather unsharded copies, optimizer state.

A network is sharded inside its `Denoiser`, at `model`, whose methods `encode` and `decode` gather
weights as `forward` does.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import DeviceMesh, distributed_c10d, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from dmd2.distributed.process_group import world_size

# Public since torch 2.15.
set_timeout = getattr(distributed, "set_timeout", None) or distributed_c10d._set_pg_timeout


def mesh_of(device: str, num_nodes: int, timeout: timedelta) -> DeviceMesh:
    """The device mesh of all ranks: sharded within a node, replicated over several nodes (HSDP).

    timeout  How long a rank waits for the others in a collective of these meshes over nodes; in a
             node alone they are all ranks, whose group has one already.
    """
    if num_nodes == 1:
        return init_device_mesh(device, (world_size(),))
    # Weights are gathered in every pass, over the fast links inside a node; only the all-reduce
    # of gradient shards goes between nodes.
    mesh = init_device_mesh(
        device, (num_nodes, world_size() // num_nodes), mesh_dim_names=("replicate", "shard")
    )
    # These groups are new ones, which have torch's timeout.
    for group in mesh.get_all_groups():
        set_timeout(timeout, group)
    return mesh


def blocks_of(
    network: nn.Module, max_parameters: int, taps: tuple[str, ...], path: str = ""
) -> Iterator[nn.Module]:
    """The blocks that FSDP2 gathers one at a time.

    They are the largest members of a network's lists of layers with at most `max_parameters`
    parameters and no tapped layer inside.
    """
    for name, child in network.named_children():
        inner = f"{path}{name}."
        size = sum(parameter.numel() for parameter in child.parameters())
        is_listed = isinstance(network, nn.ModuleList | nn.ModuleDict)
        # A loss on features starts its backward pass at a tapped layer's output. FSDP2 gathers a
        # block's weights at the gradient of the block's own output, so a tap inside would find
        # them sharded.
        is_tapped = any(tap.startswith(inner) for tap in taps)
        if is_listed and 0 < size <= max_parameters and not is_tapped:
            yield child
        else:
            yield from blocks_of(child, max_parameters, taps, inner)


def meta_copy(network: Any) -> Any:
    """A copy whose parameters are on the meta device, without storage; its buffers are copied."""
    # `deepcopy` takes what its memo holds for copied already: no weight is duplicated on the way,
    # and tied parameters stay tied.
    on_meta = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, on_meta)


def shard(part: Any, blocks: list[nn.Module], **options: Any) -> None:
    """Shard a network in place with FSDP2's `options`: its blocks, then the rest of it.

    The weights are those of rank 0, so on the other ranks `part` may be a meta copy. All ranks
    must call it.
    """
    weights = {name: parameter.detach() for name, parameter in part.named_parameters()}
    on_meta = meta_copy(part)
    # FSDP2 would copy its shards out of real weights, and keep them beside ours until the first
    # pass: it gets parameters without storage.
    part.load_state_dict(on_meta.state_dict(), assign=True)
    # Blocks first: `fully_shard` takes the parameters that no inner call has taken.
    for block in blocks:
        fully_shard(block, **options)
    fully_shard(part, **options)
    # For `gathered`. In a tuple, since a module as an attribute would be registered as a child.
    part.meta_copy = (on_meta,)
    # `pop` frees each full tensor once its shards are sent: the peak is one tensor, not a network.
    shards = {name: shard_of(weights.pop(name), like) for name, like in part.named_parameters()}
    part.load_state_dict(shards, strict=False, assign=True)  # not strict: buffers stay as they are
    for method in ("encode", "decode"):
        if hasattr(part, method):  # the discriminator has neither
            register_fsdp_forward_method(part, method)


def shard_of(tensor: Tensor, like: Any) -> Tensor:
    """This rank's shard of rank 0's tensor, placed like the DTensor `like`; a collective."""
    device = like.device_mesh.device_type
    # Ranks without weights give a tensor of the right shape, which rank 0's scatter overwrites.
    own = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
    return distribute_tensor(own, like.device_mesh, like.placements)


def parts(network: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """What `shard` has sharded inside a network, as (parent, name in the parent, module)."""
    children = [
        (parent, *named) for parent in network.modules() for named in parent.named_children()
    ]
    return [
        child
        for child in children
        # Blocks are FSDP modules too; the attribute tells what `shard` was called on.
        if isinstance(child[2], FSDPModule) and hasattr(child[2], "meta_copy")
    ]


def gathered(part: Any, device: torch.device) -> nn.Module:
    """An unsharded copy, on `device`, of what `shard` has sharded; all ranks must call it."""
    copied = copy.deepcopy(part.meta_copy[0])
    state = {
        name: unsharded_tensor(tensor).to(device) for name, tensor in part.state_dict().items()
    }
    copied.load_state_dict(state, assign=True)
    return copied.to(device)  # buffers that are in no state dict


def unsharded_tensor(tensor: Tensor) -> Tensor:
    """The full tensor of a DTensor, an all-gather that all ranks must call; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded(network: nn.Module) -> Iterator[None]:
    """A block in which a network has all its weights on every rank's device.

    All ranks must enter it. Changes to weights inside are lost: the shards come back at its end.
    """
    found = parts(network)  # kept: the copies are no FSDP modules, and would not be found again
    for parent, name, part in found:
        setattr(parent, name, gathered(part, next(part.parameters()).device))
    try:
        yield
    finally:
        for parent, name, part in found:
            setattr(parent, name, part)


def is_sharded(network: nn.Module) -> bool:
    """Whether any part of a network is sharded."""
    return bool(parts(network))


def shard_like(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's unsharded state, e.g. of a checkpoint, sharded as its parameters are."""
    # A state dict numbers parameters in the order of the groups.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def sharded(tensor: Tensor, like: Any) -> Tensor:
        # Every rank has read the whole state, so each takes its shard and nothing is sent.
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)

    sharded_state = {
        i: {
            # Adam's count of steps has no dimension to shard.
            name: sharded(value, parameters[i]) if value.ndim else value
            for name, value in entry.items()
        }
        for i, entry in state["state"].items()
    }
    return {**state, "state": sharded_state}
