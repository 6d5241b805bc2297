"""How generator and critic come from the teacher: a full copy, LoRA on it, or no weights yet."""

import copy
from collections.abc import Callable
from typing import Protocol

from dmd2.config.check import Config
from dmd2.diffusion.denoiser import Denoiser
from dmd2.distributed.fsdp import meta_copy
from dmd2.distributed.process_group import is_rank_zero
from dmd2.randomness import seeded
from dmd2.runs.build import build, makes
from dmd2.training.strategies import ShardedStrategy


class Copy(Protocol):
    """How a trainable network comes from the teacher's.

    It stays in eval mode like its teacher: distillation runs without dropout.
    """

    has_weights: bool
    """Whether this rank's network has weights of its own before training starts."""

    def network(self, teacher: Denoiser) -> Denoiser:
        """The trainable network, made before the teacher has its weights."""
        ...

    def init_from_teacher(self, network: Denoiser, teacher: Denoiser) -> None:
        """Begin with the teacher's weights, now that it has them."""
        ...


class FullCopy:
    """All weights are trained.

    from_teacher  Whether they begin as the teacher's; else they are read from a file, as soon as
                  the network is there (`dmd2.runs.assemble.load_starting_files`).
    """

    has_weights = True

    def __init__(self, from_teacher: bool = True) -> None:
        self.from_teacher = from_teacher

    def network(self, teacher: Denoiser) -> Denoiser:
        """A deep copy."""
        return copy.deepcopy(teacher).requires_grad_(True)

    def init_from_teacher(self, network: Denoiser, teacher: Denoiser) -> None:
        """Take the teacher's weights, where none were read from a file."""
        if self.from_teacher:
            network.load_state_dict(teacher.state_dict())


class LoRA:
    """Small weights on the teacher's own tensors, which stay frozen and are shared.

    adapt  What puts them on a denoiser, e.g. `dmd2.nets.lora.adapted` with its rank.
    key    Of the draw of the small weights.
    """

    has_weights = True

    def __init__(self, adapt: Callable[[Denoiser], Denoiser], *key: int | str) -> None:
        self.adapt, self.key = adapt, key

    def network(self, teacher: Denoiser) -> Denoiser:
        """The teacher's network with small weights beside it."""
        with seeded(*self.key):
            return self.adapt(teacher)

    def init_from_teacher(self, network: Denoiser, teacher: Denoiser) -> None:
        """Nothing: the frozen tensors are the teacher's own, and have its weights already."""


class MetaCopy:
    """No weights: this rank gets its shards of rank 0's when training starts (FSDP2)."""

    has_weights = False

    def network(self, teacher: Denoiser) -> Denoiser:
        """A copy whose weights are on the meta device."""
        network: Denoiser = meta_copy(teacher).requires_grad_(True)
        return network

    def init_from_teacher(self, network: Denoiser, teacher: Denoiser) -> None:
        """Nothing: there is nothing to fill."""


def copy_for(config: Config, name: str) -> Copy:
    """How a config makes "generator" or "critic"; raises ValueError for LoRA in shards."""
    file = config["weights" if name == "generator" else "critic_weights"]
    # A run of a version without LoRA has no such section.
    if (lora := config.get("lora", {}).get(name)) is not None:
        if wants_shards(config):
            raise ValueError(
                "LoRA's networks share the teacher's weights, which cannot be sharded apart; "
                "type trainer=ddp"
            )
        return LoRA(build(lora), config["seed"], f"{name} LoRA")
    # Rank 0 sends every weight when the networks are sharded, so the others need none.
    if not is_rank_zero() and wants_shards(config):
        return MetaCopy()
    return FullCopy(from_teacher=file is None)


def wants_shards(config: Config) -> bool:
    """Whether the trainer's strategy, or a subclass of it, shards the networks' weights."""
    return makes(config["trainer"].get("strategy"), ShardedStrategy)
