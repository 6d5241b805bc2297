"""Lightning's strategy for ranks that each hold a part of all weights (`trainer=fsdp`): FSDP2 in
every network.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from dmd2.diffusion.denoiser import Denoiser
from dmd2.distributed.fsdp import blocks_of, gathered, mesh_of, parts, shard, shard_like
from dmd2.distributed.process_group import check_same_weights
from dmd2.training.module import DMD
from dmd2.training.strategies import ReplicatedStrategy


class ShardedStrategy(ReplicatedStrategy):
    """Generator, critic, head and averages in shards, float32; several nodes each hold all shards.

    teacher    Whether the frozen teacher is cut, too.
    recompute  Whether a block keeps its inputs alone for the backward pass (activation
               checkpointing).
    block      Most parameters that are gathered as one; what is in no list of blocks is gathered
               together.

    Whoever is not training reads whole copies (`whole`), and checkpoints hold whole tensors, on
    rank 0's host.
    """

    def __init__(self, teacher: bool, recompute: bool, block: int) -> None:
        super().__init__()
        self.teacher, self.recompute, self.block = teacher, recompute, block

    def model_to_device(self) -> None:
        """Cut the networks, which rank 0 has whole in host memory, a block at a time on their way
        to the device.
        """
        module = self.lightning_module
        assert isinstance(module, DMD)
        check_same_weights(
            module.models.teacher.state_dict()
        )  # it is every rank's own; what is cut is rank 0's
        mesh = mesh_of(self.root_device.type, self.num_nodes)
        bf16 = self.precision_plugin.precision == "bf16-mixed"
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        trained, teacher = [module.generator, module.critic.denoiser], module.models.teacher
        for network in (*trained, *module.ema.models, *([teacher] if self.teacher else [])):
            assert isinstance(network, Denoiser)
            policy = narrow if bf16 and network in trained else MixedPrecisionPolicy()
            # A backward pass may start at a tapped layer: what is in no block then stays gathered
            # until it is over.
            read = network is (
                teacher
                if module.critic.discriminator_features == "teacher"
                else module.critic.denoiser
            )
            blocks = list(blocks_of(network.model, self.block, network.taps))
            shard(
                network.model,
                blocks,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=None if read else True,
            )
            for block in blocks if self.recompute else ():
                block.forward = partial(
                    checkpoint, block.forward, use_reentrant=False
                )  # its class stays what it is
        if module.critic.discriminator is not None:
            shard(module.critic.discriminator, [], mesh=mesh)
        module.to(self.root_device)
        for buffer in module.buffers():  # rank 0 may have read a file
            distributed.broadcast(buffer, 0)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read the weights on rank 0, whose they are until they are cut."""
        if self.is_global_zero:
            super().load_model_state_dict(checkpoint, strict)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights as whole tensors, on rank 0."""
        return self._first_has_whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state as whole tensors, on rank 0."""
        return self._first_has_whole(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's part of the whole tensors in a checkpoint."""
        states = [
            shard_like(o, state)
            for o, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def on_train_end(self) -> None:
        """Give rank 0 whole networks, the trained ones in host memory: it concludes the run
        alone.
        """
        module = self.lightning_module
        assert isinstance(module, DMD)
        for network, device in (
            (module, torch.device("cpu")),
            (module.models.teacher, self.root_device),
        ):
            for parent, name, part in parts(network):
                found = gathered(part, device)
                if self.is_global_zero:
                    setattr(parent, name, found)

    def teardown(self) -> None:
        """Leave shards where they are: a run that failed may have no other ranks to move them
        with.
        """

    def _first_has_whole(self, state: dict[str, Any]) -> dict[str, Any]:
        def of(tensor: DTensor) -> Tensor:
            full = tensor.full_tensor()
            return full.cpu() if self.is_global_zero else tensor

        return tree_map_only(DTensor, of, state)
