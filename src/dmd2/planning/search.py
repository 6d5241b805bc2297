"""The settings with which a run fits into memory, by simulating them in order of least harm."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from dmd2.config.check import Config
from dmd2.planning.simulation import Simulation, simulate
from dmd2.runs.build import makes
from dmd2.runs.memory import GIB
from dmd2.runs.term_requirements import COMPARING, SAMPLES_TO_COMPARE
from dmd2.training.module import NETWORKS

CONTEXT_BYTES = 0.8 * GIB
"""What CUDA's context and libraries take."""
FRAGMENTATION = 0.08
"""Part of the tensors' bytes that the allocator loses."""
ADAMW = "torch.optim.AdamW"
EIGHT_BIT = "optimizer=adamw_8bit"
"""A quarter of the optimizers' memory; it wants torchao."""


def bytes_of(text: str) -> float:
    """Bytes of 24GB, 24GiB, 1TB, 1TiB or 24, which are GB; raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GT]B|[GT]iB)?", text, re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"memory={text} is no amount of memory; type e.g. memory=24GB")
    units = {"gb": 1e9, "gib": GIB, "tb": 1e12, "tib": 1024 * GIB}
    return float(found[1]) * units[(found[2] or "GB").lower()]


def needed(found: Simulation) -> float:
    """Bytes of a card for a run: its tensors at their highest peak, and what is assumed."""
    return on_card(found.most)


def on_card(num_bytes: float) -> float:
    """Bytes of a card for tensors of so many, and for what is assumed."""
    return num_bytes * (1 + FRAGMENTATION) + CONTEXT_BYTES


def smaller_passes(config: Config) -> Iterator[list[str]]:
    """Words for fewer samples in one pass of a grid or a score, one in the place of the other."""
    size = config["metric"]["batch_size"]
    for num in (2, 4, 8):
        if size >= num:
            yield [f"metric.batch_size={size // num}"]


def levers(config: Config) -> Iterator[list[str]]:
    """Words to add one after the other, in order of least harm to what is learned."""
    share = config["data"]["batch_size"] // config["accumulate"]
    denoiser = config["teacher"]["denoiser"]
    recomputed = (denoiser.get("model", {}) | denoiser).get("gradient_checkpointing")
    if recomputed is False:
        yield ["memory.gradient_checkpointing=selective"]
    if recomputed in (False, "selective"):
        yield ["memory.gradient_checkpointing=true"]  # a quarter to a third more time
    # The same batch in smaller shares: the same numbers up to rounding, and more time. Terms that
    # compare samples of a pass keep enough of them.
    compares = any(makes(node, *COMPARING) for node in config["loss"]["generator"].values())
    least = SAMPLES_TO_COMPARE if compares else 1
    for num in (2, 4, 8, 16, 32, 64):
        if share % num == 0 and share // num >= least:
            yield [f"accumulate={config['accumulate'] * num}"]
    if config["teacher"].get("dtype", "bfloat16") is None:
        yield ["teacher.dtype=bfloat16"]
    if config["memory"]["decoded_at_once"] > 1 and "autoencoder" in config["teacher"]:
        yield ["memory=low"]  # embeddings on disk
    if config["memory"]["decoded_tile"] is None and "autoencoder" in config["teacher"]:
        yield ["memory.decoded_tile=512"]  # images change a little, and what is learned does not
    # From here on other numbers are learned. Nodes of other optimizers stay as they are.
    if all(config["optimizer"][name]["_target_"] == ADAMW for name in NETWORKS):
        yield [EIGHT_BIT]
    if "encoder" in config["teacher"]["conditioner"]:
        if config["lora"]["generator"] is None or config["lora"]["critic"] is None:
            yield ["lora=both"]
        # Other ranks than the published 64.
        yield ["lora=both", "lora.generator.rank=16", "lora.critic.rank=16"]


def fitting(
    words: Sequence[str],
    found: Simulation,
    memory: float,
    compose: Callable[[list[str]], Config],
) -> tuple[list[str], Simulation] | None:
    """The fewest words that were needed on top of `words`, and what a run with them takes.

    Levers are added until the run fits; then each is taken away again that it fits without. None
    where nothing helps.

    found  What the run takes with `words` alone.
    """
    added: dict[str, str] = {}
    config = compose(list(words))
    smaller = list(smaller_passes(config))
    for more in [*smaller, *levers(config)]:
        shown = [peak.total() for name, peak in found.peaks.items() if name != "training"]
        if more in smaller and on_card(max(shown, default=0)) <= memory:
            continue
        added |= by_key(more)
        found = simulate(compose(together(words, added)))
        if needed(found) <= memory:
            return _fewest(words, added, found, memory, compose)
    return None


def by_key(words: Iterable[str]) -> dict[str, str]:
    """Words KEY=VALUE by their keys."""
    return {word.partition("=")[0]: word for word in words}


def together(words: Sequence[str], added: Mapping[str, str]) -> list[str]:
    """Words of a command with others added, which take the place of those of the same key."""
    return list({**by_key(words), **added}.values())


def _fewest(
    words: Sequence[str],
    added: Mapping[str, str],
    found: Simulation,
    memory: float,
    compose: Callable[[list[str]], Config],
) -> tuple[list[str], Simulation]:
    kept = dict(added)
    # The last one was needed, and the keys of a LoRA need their group.
    for key in list(added)[:-1]:
        fewer = {name: word for name, word in kept.items() if name != key}
        if key == "lora":
            continue
        without = simulate(compose(together(words, fewer)))
        if needed(without) <= memory:
            kept, found = fewer, without
    return list(kept.values()), found
