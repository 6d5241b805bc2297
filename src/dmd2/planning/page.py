"""The plan as a page of text."""

from collections.abc import Callable, Sequence

from dmd2.config.check import Config
from dmd2.planning.cards import CARDS, GIB
from dmd2.planning.search import CONTEXT_BYTES, FRAGMENTATION, fitting, needed
from dmd2.planning.simulation import Simulation
from dmd2.planning.traffic import bytes_sent, checkpoint_bytes

TEXT_PARAMETERS = {"clip": 123_060_480, "clip_pair": 817_720_320}
"""Of text encoders, by the last name of their node: CLIP-L, and CLIP-L with OpenCLIP-bigG."""


def page(config: Config, found: Simulation, num_devices: int) -> list[str]:
    """The tables of memory, work and time, and lines of traffic and disk."""
    return [
        f"{config['name']}: {config['data']['batch_size']} images on each of {num_devices} devices,"
        f" {found.num:,} parameters",
        *memory_table(config, found),
        "",
        *work_table(config, found),
        "",
        *time_table(config, found),
        "",
        f"each device sends {bytes_sent(config, found, num_devices) / 1e9:.2f} GB in a mean "
        "iteration",
        *disk_lines(config, found),
    ]


def memory_table(config: Config, found: Simulation) -> list[str]:
    """Bytes at the peak of a training cycle, by owner."""
    rows = [f"| {owner} | {size / GIB:.2f} |" for owner, size in found.peak.most_common()]
    lost = FRAGMENTATION * found.peak.total()
    return [
        "| memory at the peak of training | GiB |",
        "|---|---|",
        *rows,
        f"| tensors together | {found.peak.total() / GIB:.2f} |",
        f"| CUDA context (assumed) | {CONTEXT_BYTES / GIB:.2f} |",
        f"| fragmentation, {FRAGMENTATION:.0%} (assumed) | {lost / GIB:.2f} |",
        f"| **device** | **{needed(found) / GIB:.2f}** |",
        *text_row(config),
    ]


def text_row(config: Config) -> list[str]:
    """What text encoders take beside that, where their size is known."""
    node = config["teacher"]["conditioner"].get("encoder")
    if node is None:
        return []
    num = TEXT_PARAMETERS.get(node["_target_"].rpartition(".")[2])
    narrow = node.get("dtype") in ("bfloat16", "float16")
    size = "not known" if num is None else f"{num * (2 if narrow else 4) / GIB:.2f}"
    return [f"| beside it: text encoders, where they are on the device | {size} |"]


def work_table(config: Config, found: Simulation) -> list[str]:
    """Operations and FLOPs by kind of iteration."""
    every = config["critic_updates"]
    num_f = max(found.forward.flops, 1)
    works = {
        "generator and critic": found.both,
        "critic alone": found.alone,
        f"mean of {every}": found.mean(every),
        "one pass of the generator (F)": found.forward,
    }
    return [
        "| iteration | TFLOP | passes F | operations |",
        "|---|---|---|---|",
        *(
            f"| {name} | {work.flops / 1e12:.3g} | {work.flops / num_f:.1f} | "
            f"{work.num_operations:,.0f} |"
            for name, work in works.items()
        ),
    ]


def time_table(config: Config, found: Simulation) -> list[str]:
    """Estimates of a mean iteration on cards, by roofline."""
    mean, num = found.mean(config["critic_updates"]), config["max_iterations"]
    rows = [(card, card.seconds(mean), needed(found) <= card.memory) for card in CARDS]
    return [
        "| card | fits | s a mean iteration, estimated | hours of the run |",
        "|---|---|---|---|",
        *(
            f"| {card.name} | {'yes' if fits else 'no'} | {time:.2g} | {time * num / 3600:,.0f} |"
            for card, time, fits in rows
        ),
    ]


def disk_lines(config: Config, found: Simulation) -> list[str]:
    """What a run keeps on disk; the best checkpoint lies beside the newest."""
    one, num = checkpoint_bytes(config, found), config["checkpoint"]["keep"] + 1
    return [f"a checkpoint takes {one / 1e9:.1f} GB; {num} are kept: {num * one / 1e9:.1f} GB"]


def advice(
    words: Sequence[str],
    found: Simulation,
    memory: float,
    compose: Callable[[list[str]], Config],
) -> str:
    """Whether a run fits into a card's memory, and if not, the words with which it does."""
    left = memory - needed(found)
    if left >= 0:
        return f"fits into {memory / GIB:.1f} GiB, with {left / GIB:.1f} GiB to spare"
    begin = f"does not fit into {memory / GIB:.1f} GiB, {-left / GIB:.1f} GiB are missing"
    better = fitting(words, memory, compose)
    if better is None:
        return f"{begin}; no setting of this program makes it fit: try gpus=N trainer=fsdp"
    added, then = better
    return (
        f"{begin}; with these words it takes {needed(then) / GIB:.1f} GiB, type: {' '.join(added)}"
    )
