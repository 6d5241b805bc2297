"""Bytes that an iteration sends between devices, and that a run keeps on disk; closed forms."""

from dmd2.config.check import Config
from dmd2.planning.simulation import Simulation
from dmd2.planning.sizes import last_name
from dmd2.runs.copies import wants_shards
from dmd2.runs.room import ADAM, FLOAT_BYTES


def bytes_sent(config: Config, found: Simulation, num_devices: int) -> float:
    """Bytes that each device sends in a mean iteration (ring all-reduce, float32 gradients).

    In shards (FSDP2) a reduce-scatter sends half of that, and each turn gathers bfloat16 weights
    for its forward and its backward pass, once a share.
    """
    ring = (num_devices - 1) / num_devices
    updated = found.trained["critic"] + found.trained["generator"] / config["critic_updates"]
    if not wants_shards(config):
        return 2 * ring * FLOAT_BYTES * updated
    gathered = 2 * 2 * config["accumulate"]  # two passes of two bytes
    return ring * (FLOAT_BYTES + gathered) * updated


def checkpoint_bytes(config: Config, found: Simulation) -> float:
    """Bytes of one checkpoint: trained weights, Adam's two numbers of each, and averages."""
    averages = len(config["ema"]) * found.trained["generator"]
    return FLOAT_BYTES * (sum(found.trained.values()) * (1 + ADAM) + averages)


def embedding_bytes(config: Config, found: Simulation) -> int:
    """Bytes of a caption's embedding on disk: float32 of CLIP, else bfloat16."""
    is_clip = last_name(config["teacher"]["conditioner"]["encoder"]) in ("clip", "clip_pair")
    return (FLOAT_BYTES if is_clip else 2) * found.caption


def pair_bytes(config: Config, found: Simulation) -> int:
    """Bytes of all noise-image pairs: noises in float16, images in `pairs.dtype`."""
    image = 1 if config["pairs"]["dtype"] == "uint8" else 2
    num: int = config["pairs"]["num_pairs"]
    return num * found.sample * (2 + image)
