"""Lightning's strategies for several processes: replicated (DDP) and sharded (FSDP2) weights."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from dmd2.diffusion.denoiser import Denoiser
from dmd2.distributed.fsdp import blocks_of, gathered, mesh_of, parts, shard, shard_like
from dmd2.distributed.process_group import COLLECTIVE_MINUTES, check_same_weights
from dmd2.training.module import DMD

WIRE = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Dtypes of gradients that are sent; float16 would overflow."""


class ProcessEnvironment(LightningEnvironment):
    """The processes as whoever started them named them, in torchrun's variables."""

    def teardown(self) -> None:
        """Keep WORLD_SIZE, which Lightning would delete: the next fit here is of the same ranks."""


class ReplicatedStrategy(DDPStrategy):
    """Every rank holds all weights (`trainer=ddp`), and the module stays bare.

    `dmd2.distributed.gradients` averages the updated network's gradients, once an update.
    Lightning's wrapper expects every parameter in every backward pass, or sends them all.

    reduce_dtype     Of gradients on the wire: "float32", or "bfloat16", half the bytes.
    timeout_minutes  How long a rank waits for the others in a collective; who starts the process
                     group reads it from the configuration. Shards over nodes have it, too.

    Raises ValueError for another one.
    """

    def __init__(
        self, reduce_dtype: str = "float32", timeout_minutes: float = COLLECTIVE_MINUTES
    ) -> None:
        self.timeout = timedelta(minutes=timeout_minutes)
        super().__init__(timeout=self.timeout)
        if reduce_dtype not in WIRE:
            raise ValueError(
                f"reduce_dtype must be {' or '.join(WIRE)}, got {reduce_dtype}; type "
                "trainer.strategy.reduce_dtype=float32"
            )
        self.reduce_dtype = WIRE[reduce_dtype]

    def configure_ddp(self) -> None:
        """Wrap nothing."""

    def setup(self, trainer: L.Trainer) -> None:
        """Keep Lightning from broadcasting a flag in every iteration and reading it back.

        `dmd2.training.callbacks.interrupt` agrees on signals at the reports.
        """
        super().setup(trainer)
        # Lightning has no switch for this, so its private method is replaced, and checked to exist.
        loop: Any = trainer.fit_loop.epoch_loop
        assert hasattr(loop, "_broadcast_sigterm_tensor"), (
            "lightning has changed; see whether it still broadcasts"
        )
        loop._broadcast_sigterm_tensor = lambda: None


class ShardedStrategy(ReplicatedStrategy):
    """Every rank holds a shard of all weights, float32 (`trainer=fsdp`): FSDP2 in every network.

    Generator, critic, discriminator and averages are sharded within a node; several nodes are
    replicas of each other. Scores and pictures read unsharded copies
    (`dmd2.distributed.fsdp.unsharded`), and checkpoints hold full tensors, on rank 0's host.

    teacher          Whether the frozen teacher is sharded, too.
    recompute        Whether a block keeps its inputs alone for the backward pass (activation
                     checkpointing).
    block            Most parameters that are gathered as one; what is in no list of blocks is
                     gathered together.
    timeout_minutes  As for replicas.
    """

    def __init__(
        self,
        teacher: bool,
        recompute: bool,
        block: int,
        timeout_minutes: float = COLLECTIVE_MINUTES,
    ) -> None:
        super().__init__(timeout_minutes=timeout_minutes)
        self.teacher, self.recompute, self.block = teacher, recompute, block

    def model_to_device(self) -> None:
        """Shard the networks, which rank 0 has in host memory, on their way to the devices."""
        module = self.lightning_module
        assert isinstance(module, DMD)
        # The teacher is every rank's own; of the others only rank 0's weights count.
        check_same_weights(module.models.teacher.state_dict())
        # Shards within a node, where links are fast; nodes replicate each other.
        mesh = mesh_of(self.root_device.type, self.num_nodes, self.timeout)
        bf16 = self.precision_plugin.precision == "bf16-mixed"
        # Weights are gathered as bfloat16, gradients are reduced in float32.
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        trained, teacher = [module.generator, module.critic.denoiser], module.models.teacher
        for network in (*trained, *module.ema.models, *([teacher] if self.teacher else [])):
            assert isinstance(network, Denoiser)
            # Averages and the teacher are never trained: they stay as they are.
            policy = narrow if bf16 and network in trained else MixedPrecisionPolicy()
            # A backward pass may start at a tapped layer: what is in no block then stays gathered
            # until it is over.
            is_tapped = network is (
                teacher
                if module.critic.discriminator_features == "teacher"
                else module.critic.denoiser
            )
            # A block is gathered when it is needed and let go after: the peak is a block, not a
            # network.
            blocks = list(blocks_of(network.model, self.block, network.taps))
            shard(
                network.model,
                blocks,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=None if is_tapped else True,
            )
            for block in blocks if self.recompute else ():
                # torch's wrapper would change the block's class and its weights' names.
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if module.critic.discriminator is not None:
            shard(module.critic.discriminator, [], mesh=mesh)
        module.to(self.root_device)
        for buffer in module.buffers():  # rank 0 may have read other values from a file
            distributed.broadcast(buffer, 0)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read the weights on rank 0, which has them until they are sharded."""
        if self.is_global_zero:
            super().load_model_state_dict(checkpoint, strict)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights as full tensors, on rank 0."""
        return self._full_on_rank_zero(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state as full tensors, on rank 0."""
        return self._full_on_rank_zero(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's shards of the full tensors in a checkpoint."""
        # Every rank has read the file, and keeps its own part of each tensor.
        states = [
            shard_like(o, state)
            for o, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def on_train_end(self) -> None:
        """Give rank 0 unsharded networks, the trained ones in host memory.

        Rank 0 alone writes the run's results.
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
        """Leave shards where they are: after a failure there may be no ranks to gather from."""

    def _full_on_rank_zero(self, state: dict[str, Any]) -> dict[str, Any]:
        def full(tensor: DTensor) -> Tensor:
            gathered_tensor = tensor.full_tensor()  # a collective: all ranks take part
            return gathered_tensor.cpu() if self.is_global_zero else tensor

        return tree_map_only(DTensor, full, state)
