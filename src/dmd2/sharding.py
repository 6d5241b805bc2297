"""Lightning's strategy for ranks that each hold a part of all weights: FSDP2 around every network (`trainer=fsdp`).

A network is cut inside its `Denoiser`, at `model`, whose `encode` and `decode` gather weights as `forward` does.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from dmd2.module import DMD
from dmd2.nets.denoiser import Denoiser
from dmd2.ranks import check_alike, world_size
from dmd2.replicas import Replicas


class Shards(Replicas):
    """Generator, critic, head and averages in shards, float32; several nodes each hold all shards.

    teacher    Whether the frozen teacher is cut, too.
    recompute  Whether a block keeps its inputs alone for the backward pass (activation checkpointing).
    block      Most parameters that are gathered as one; what is in no list of blocks is gathered together.

    Whoever is not training reads whole copies (`whole`), and checkpoints hold whole tensors, on rank 0's host.
    """

    def __init__(self, teacher: bool, recompute: bool, block: int) -> None:
        super().__init__()
        self.teacher, self.recompute, self.block = teacher, recompute, block

    def model_to_device(self) -> None:
        """Cut the networks, which every rank has whole in host memory, a block at a time on its way to the device."""
        module = self.lightning_module
        assert isinstance(module, DMD)
        check_alike(module.state_dict())
        mesh = mesh_of(self.root_device.type, self.num_nodes)
        bf16 = self.precision_plugin.precision == "bf16-mixed"
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        trained, teacher = [module.generator, module.critic.denoiser], module.models.teacher
        for network in (*trained, *module.ema.models, *([teacher] if self.teacher else [])):
            assert isinstance(network, Denoiser)
            policy = narrow if bf16 and network in trained else MixedPrecisionPolicy()
            # A backward pass may start at a tapped layer: what is in no block then stays gathered until it is over.
            read = network is (teacher if module.critic.head_reads == "teacher" else module.critic.denoiser)
            blocks = list(blocks_of(network.model, self.block, network.taps))
            shard(network.model, blocks, mesh=mesh, mp_policy=policy, reshard_after_forward=None if read else True)
            for block in blocks if self.recompute else ():
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # its class stays what it is
        if module.critic.head is not None:
            shard(module.critic.head, [], mesh=mesh)
        module.to(self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights as whole tensors, on rank 0."""
        return self._first_has_whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state as whole tensors, on rank 0."""
        return self._first_has_whole(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's part of the whole tensors in a checkpoint; its weights were read before they were cut."""
        states = [
            cut_like(o, state) for o, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def on_train_end(self) -> None:
        """Give rank 0 whole networks, the trained ones in host memory: it concludes the run alone."""
        module = self.lightning_module
        assert isinstance(module, DMD)
        for network, device in ((module, torch.device("cpu")), (module.models.teacher, self.root_device)):
            for parent, name, part in parts(network):
                found = gathered(part, device)
                if self.is_global_zero:
                    setattr(parent, name, found)

    def teardown(self) -> None:
        """Leave shards where they are: a run that failed may have no other ranks to move them with."""

    def _first_has_whole(self, state: dict[str, Any]) -> dict[str, Any]:
        def of(tensor: DTensor) -> Tensor:
            full = tensor.full_tensor()
            return full.cpu() if self.is_global_zero else tensor

        return tree_map_only(DTensor, of, state)


def mesh_of(device: str, num_nodes: int) -> DeviceMesh:
    """All ranks: shards lie within a node, and several nodes are replicas of each other."""
    if num_nodes == 1:
        return init_device_mesh(device, (world_size(),))
    return init_device_mesh(device, (num_nodes, world_size() // num_nodes), mesh_dim_names=("replicate", "shard"))


def blocks_of(network: nn.Module, most: int, taps: tuple[str, ...], path: str = "") -> Iterator[nn.Module]:
    """The largest members of lists of layers with at most `most` parameters, and no tapped layer inside.

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


def shard(part: Any, blocks: list[nn.Module], **options: Any) -> None:
    """Cut a network in place with FSDP2's `options`: its blocks, then the rest of it."""
    # Without weights, for `gathered`. In a tuple the registry does not see it.
    bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in part.parameters()}
    outline = (copy.deepcopy(part, bare),)
    for block in blocks:
        fully_shard(block, **options)
    fully_shard(part, **options)
    part.outline = outline
    for method in ("encode", "decode"):
        if hasattr(part, method):
            register_fsdp_forward_method(part, method)


def parts(network: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """What `shard` has cut in a network: each with its parent, and its name there."""
    children = [(parent, *named) for parent in network.modules() for named in parent.named_children()]
    return [child for child in children if isinstance(child[2], FSDPModule) and hasattr(child[2], "outline")]


def gathered(part: Any, device: torch.device) -> nn.Module:
    """A whole copy of what `shard` has cut, on `device`; all ranks must ask for it."""
    copied = copy.deepcopy(part.outline[0])
    state = {name: whole_tensor(tensor).to(device) for name, tensor in part.state_dict().items()}
    copied.load_state_dict(state, assign=True)
    return copied.to(device)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def whole(network: nn.Module) -> Iterator[None]:
    """A block in which a network is whole on every rank's device, as it is without shards; all ranks must enter."""
    found = parts(network)
    for parent, name, part in found:
        setattr(parent, name, gathered(part, next(part.parameters()).device))
    try:
        yield
    finally:
        for parent, name, part in found:
            setattr(parent, name, part)


def in_shards(network: nn.Module) -> bool:
    """Whether a network's weights are cut."""
    return bool(parts(network))


def cut_like(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's whole state, of which every rank has a copy, cut as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(tensor: Tensor, like: Any) -> Tensor:
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)

    cut_state = {
        i: {name: cut(value, parameters[i]) if value.ndim else value for name, value in entry.items()}
        for i, entry in state["state"].items()
    }
    return {**state, "state": cut_state}
