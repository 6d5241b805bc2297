"""The plan as a page of text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dmd2.config.check import Config
from dmd2.planning.cards import CARDS
from dmd2.planning.search import CONTEXT_BYTES, EIGHT_BIT, FRAGMENTATION, fitting, needed
from dmd2.planning.simulation import Simulation
from dmd2.planning.sizes import autoencoder_node, is_encoding, text_bytes
from dmd2.planning.traffic import bytes_sent, checkpoint_bytes, embedding_bytes, pair_bytes
from dmd2.runs.build import build
from dmd2.runs.memory import GIB


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
        f"each device sends {amount(bytes_sent(config, found, num_devices))} in a mean iteration",
        *disk_lines(config, found),
    ]


def memory_table(config: Config, found: Simulation) -> list[str]:
    """Bytes by owner, at the peaks of training, of a sample grid and of a score."""
    peaks = list(found.peaks.values())
    owners = dict.fromkeys(owner for peak in peaks for owner, _ in peak.most_common())
    rows = {owner: [peak[owner] for peak in peaks] for owner in owners}
    rows["tensors together"] = [peak.total() for peak in peaks]
    lost = FRAGMENTATION * found.most
    return [
        f"| GiB at the peak of | {' | '.join(found.peaks)} |",
        "|---" * (1 + len(peaks)) + "|",
        *(
            f"| {owner} | {' | '.join(f'{size / GIB:.2f}' for size in sizes)} |"
            for owner, sizes in rows.items()
        ),
        "",
        f"device: {needed(found) / GIB:.2f} GiB, with {CONTEXT_BYTES / GIB:.1f} for CUDA's context "
        f"and {lost / GIB:.2f} for fragmentation, both assumed",
        *unknown(config),
    ]


def unknown(config: Config) -> Iterator[str]:
    """What is not in the figures, since its size is not known."""
    if text_bytes(config) is None:
        yield "not counted: the text encoders, whose size is not known"
    node = config["teacher"].get("autoencoder")
    if node and autoencoder_node(build(node)) is None:
        yield "not counted: the VAE, whose size is not known"


def work_table(config: Config, found: Simulation) -> list[str]:
    """Operations and FLOPs by kind of iteration."""
    every = config["critic_updates"]
    num_f = max(found.forward.flops, 1)
    works = {
        "generator and critic": found.both,
        **({"critic alone": found.alone} if every > 1 else {}),
        f"mean of {every}": found.mean(every),
        "one pass of the generator (F)": found.forward,
        "one of the critic's encoder (E)": found.encoder,
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
    lines = [
        "| card | fits | s a mean iteration, estimated | hours of the run |",
        "|---|---|---|---|",
    ]
    for card in CARDS:
        fits, time = needed(found) <= card.memory, card.seconds(mean)
        hours = time * num / 3600
        shown = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
        lines += [f"| {card.name} | {'yes' if fits else 'no'} | {time:.2g} | {shown} |"]
    return lines


def disk_lines(config: Config, found: Simulation) -> list[str]:
    """What a run keeps on disk; the best checkpoint lies beside the newest."""
    one, num = checkpoint_bytes(config, found), config["checkpoint"]["keep"] + 1
    lines = [f"a checkpoint takes {amount(one)}; {num} are kept: {amount(num * one)}"]
    if "encoder" in config["teacher"]["conditioner"] and not is_encoding(config):
        size = amount(embedding_bytes(config, found))
        lines += [f"embeddings in the cache take {size} a caption"]
    if config["pairs"] is not None:
        size = amount(pair_bytes(config, found))
        lines += [f"{config['pairs']['num_pairs']:,} pairs in the cache take {size}"]
    return lines


def amount(num_bytes: float) -> str:
    """Bytes in words, in the largest unit of which there is one."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


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
    better = fitting(words, found, memory, compose)
    if better is None:
        return f"{begin}; no setting of this program makes it fit: try gpus=N trainer=fsdp"
    added, then = better
    wanted = "" if EIGHT_BIT not in added else " (8-bit moments want torchao: .[low_memory])"
    return (
        f"{begin}; with these words it takes {needed(then) / GIB:.1f} GiB{wanted}, type: "
        f"{' '.join(added)}"
    )


def measured_line(config: Config, found: Simulation, summary: Mapping[str, Any]) -> str:
    """What a run's summary says that it took at most, beside the plan."""
    on_gpu = config["trainer"]["accelerator"] == "gpu"
    whose = "tensors on the GPU" if on_gpu else "the process, with Python and its libraries"
    return (
        f"measured at most: {summary['peak_memory_bytes'] / GIB:.2f} GiB of {whose}; planned: "
        f"{found.most / GIB:.2f} GiB of tensors"
    )
