"""What a run says before it begins: where and on what, which networks, what is made first."""

from collections.abc import Mapping

import torch
from torch import nn

from dmd2.config.check import Config
from dmd2.config.devices import trainer_of
from dmd2.distributed.process_group import world_size
from dmd2.runs.assemble import Parts
from dmd2.runs.cached import data_references_path, pairs_folder, teacher_references_path
from dmd2.runs.memory import planned_words
from dmd2.runs.provenance import hardware


def opening(
    config: Config,
    parts: Parts,
    iteration: int,
    is_scored: bool,
    planned: Mapping[str, int] | None = None,
) -> list[str]:
    """Lines on the run that begins at `iteration`.

    is_scored  Whether it is scored, and so beside what has scores of its own.
    planned    Bytes of its device at the peaks of its plan; None where it has none.
    """
    trainer, data = trainer_of(config), parts.data
    start = f"{iteration:,} to " if iteration else ""
    updates, log_every = config["critic_updates"], config["log_every"]
    found = in_cache(config, parts, is_scored)
    made = [name for name, is_there in found.items() if not is_there]
    there = [name for name, is_there in found.items() if is_there]
    batch = data.batch_size * world_size()
    return [
        f"{config['name']} in {config['paths']['run']}, seed {config['seed']}",
        f"  device: {world_size()} x {trainer['accelerator']}, "
        f"{trainer.get('precision', '32-true')}, threads: {torch.get_num_threads()}; {hardware()}",
        f"  parameters: {', '.join(parameters(parts))}",
        f"  data: {type(data).__name__}, {len(data.train):,} samples of {list(data.shape)}, "
        f"{batch:,} an iteration",
        f"  iterations: {start}{config['max_iterations']:,}, {updates} to a generator's update, "
        f"{log_every} to a report",
        f"  in {config['paths']['cache']}: {', '.join(there) or 'nothing'}; "
        f"made first: {', '.join(made) or 'nothing'}",
        *([f"  memory by plan: {planned_words(planned)}"] if planned else []),
    ]


def parameters(parts: Parts) -> list[str]:
    """The networks, each with the number of its parameters, and of those that are trained."""
    module = parts.module
    networks: dict[str, nn.Module] = {
        "teacher": parts.teacher.denoiser,
        "generator": module.generator,
        "critic": module.critic,
    }
    found = []
    for name, network in networks.items():
        sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
        num, trained = sum(size for size, _ in sizes), sum(size for size, on in sizes if on)
        part = f" ({trained:,} trained)" if 0 < trained < num else ""
        found.append(f"{name} {num:,}{part}")
    return found


def in_cache(config: Config, parts: Parts, is_scored: bool) -> dict[str, bool]:
    """What the run takes from the cache, or makes once and keeps there: whether it is there."""
    teacher, found = parts.teacher, dict[str, bool]()
    if teacher.train is not None:
        num = config["teacher"]["pretrain"]["max_iterations"]
        found[f"teacher (trained for {num:,} iterations)"] = teacher.path.exists()
    if is_scored:
        found["scores of data"] = data_references_path(config, parts.evaluator).exists()
        path = teacher_references_path(config, parts.evaluator, teacher)
        found["scores of the teacher"] = path.exists()
    if config["pairs"] is not None:
        folder = pairs_folder(config, teacher, parts.data)
        is_there = folder.exists() and not (folder / "progress").exists()
        found[f"{config['pairs']['num_pairs']:,} pairs"] = is_there
    return found
