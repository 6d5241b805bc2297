"""Which networks of a training module are compiled, and when that does not go."""

from dmd2.config.check import Config
from dmd2.diffusion.compiled import compile_in_place, methods
from dmd2.diffusion.denoiser import Denoiser
from dmd2.runs.copies import wants_shards
from dmd2.training.module import DMD


def networks(module: DMD) -> list[Denoiser]:
    """All networks that make passes over samples: teacher, generator, critic and averages."""
    averages = list(module.ema.named().values())
    return [module.models.teacher, module.generator, module.critic.denoiser, *averages]


def check_compile(config: Config, module: DMD) -> None:
    """Raise ValueError where `compile` is no known word, or does not go with the networks."""
    for network in networks(module):
        methods(network, config["compile"])
    if config["compile"] == "halves" and wants_shards(config):
        # FSDP2 gathers blocks by hooks inside of the halves.
        raise ValueError("shards are gathered block by block; type compile=blocks, or trainer=ddp")


def compile_networks(module: DMD, parts: str | None, backend: str = "inductor") -> None:
    """Compile the networks in place, once they have their weights and before their first pass.

    parts  "blocks", "halves", or None for nothing.
    """
    for network in networks(module):
        compile_in_place(network, parts, backend)
