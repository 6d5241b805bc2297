"""Numbers of a run that the checks of its health read: of the module, real data and the record."""

from itertools import compress

import torch
from torch import Tensor, nn

from dmd2.data.base import DataModule
from dmd2.evaluation.health.null import null_error
from dmd2.evaluation.health.probe import RealRows, share_in_float16
from dmd2.evaluation.scores import best
from dmd2.nets.text.prompts import Prompts
from dmd2.randomness import generator
from dmd2.training.module import DMD
from dmd2.training.record import Record
from dmd2.training.update_size import some_of

SHARE_OF_READ = 0.01
"""Of weights in float16: above it some are still as a file of half precision had them."""
NUM_LEARNING = 100
"""Updates of the generator before it is asked what half of a run has taught it."""
NUM_SETTLING = 20
"""Updates of the generator before its critic's pace is asked: Adam's first ones move nearly every
weight by the whole learning rate.
"""
MAX_ENTRIES, MAX_ROWS = 2**24, 2000
"""Of the real data so many numbers and rows are kept on the host at most, as float32: 64 MiB."""


def real_rows(data: DataModule) -> RealRows:
    """Training samples of `data`, evenly spaced."""
    num = max(2, min(MAX_ROWS, len(data.train), MAX_ENTRIES // data.train.x[0].size))
    rows = slice(None, None, -(-len(data.train) // num))
    labels = torch.tensor(data.train.labels[rows])
    return RealRows(data.to_model(torch.tensor(data.train.x[rows])), data.class_of(labels))


def null_error_of(module: DMD, x: Tensor, at_once: int) -> dict[str, float]:
    """How well a guided text teacher knows its twin, on real samples x [B, ...], `at_once` a pass.

    Nothing of a network that is told its guidance, or where that leads away from a negative text.
    """
    teacher, conditioner = module.models.teacher, module.models.conditioner
    if not isinstance(conditioner, Prompts) or conditioner.negative is not None:
        return {}
    if teacher.embedded_guidance is not None:
        return {}
    x, noise = x.to(module.device), torch.randn(x.shape, generator=generator(0, "null"))
    # Of any caption: both twins replace what comes from words.
    row = conditioner(torch.zeros(1, dtype=torch.long, device=module.device))
    cond = {key: value.expand(len(x), *value.shape[1:]) for key, value in row.items()}
    nulls = conditioner.null(cond), conditioner.other_null(cond)
    with module.trainer.precision_plugin.forward_context():
        return {"watch/null_error": float(null_error(teacher, x, noise.to(x), *nulls, at_once))}


def pace(module: DMD) -> dict[str, float]:
    """How far the critic's weights move while the generator's make one update, against those.

    Where regression on pairs holds the generator (DMD), `watch/regression` = 1 instead. Nothing
    where there is no fake score to follow, in the generator's first `NUM_SETTLING` updates, and
    where it trains weights that the critic does not: LoRA on one network alone, whose few weights
    move far.
    """
    if "pairs" in module.objective.needs:
        return {"watch/regression": 1.0}
    now = module.latest
    moved = now.get("generator/update_to_weights", 0.0)
    # The critic may train more: an embedding of the sampling step.
    alike = trained_names(module.generator) <= trained_names(module.critic.denoiser)
    num_updates = updates_of_generator(module)
    if "generator/score_cosine" not in now or not alike or moved == 0 or num_updates < NUM_SETTLING:
        return {}
    critic = module.critic_updates * now["critic/update_to_weights"]
    return {"watch/critic_pace": critic / moved}


def progress(module: DMD, num_iterations: int) -> dict[str, float]:
    """The share of a run of `num_iterations` that is over, from its `NUM_LEARNING` updates on."""
    is_early = updates_of_generator(module) < NUM_LEARNING
    return {} if is_early else {"watch/progress": module.iteration / num_iterations}


def updates_of_generator(module: DMD) -> float:
    """How often the generator was updated."""
    return (module.iteration - module.critic_head_start) / module.critic_updates


def trained_names(network: nn.Module) -> set[str]:
    """The names of the parameters that are not frozen."""
    return {name for name, weight in network.named_parameters() if weight.requires_grad}


def averages(module: DMD) -> dict[str, float]:
    """How coarse the first average is, of the weights that are trained.

    Nothing without one, and while the weights themselves are as coarse: as they were read.
    """
    if not len(module.ema.models):
        return {}
    raw = list(module.generator.parameters())
    trained = [p.requires_grad for p in raw]
    kept = module.ema.models[0].parameters()
    own, average = (
        float(share_in_float16(some_of(list(compress(p, trained))))) for p in (raw, kept)
    )
    return {"watch/average_in_float16": average} if own < SHARE_OF_READ else {}


def trend(record: Record) -> dict[str, float]:
    """The newest score against the best, the untrained student's and the teacher's best; and that
    against the teacher's worst in fewer steps.
    """
    primary, history = record.primary, record.history
    now, ever = best(history[-1:], primary), best(history, primary)
    found = {
        "watch/score_to_best": now[primary] / ever[primary] if ever[primary] > 0 else 1.0,
        "watch/since_best": float(sum(row["iteration"] > ever["iteration"] for row in history)),
    }
    references = record.references
    teacher = {int(n): s[primary] for n, s in references.get("teacher", {}).items()}
    # The untrained student is the teacher in the student's steps, and of four may be good already.
    start = references.get("start", {}).get("untrained_student", {}).get(primary, 0.0)
    if teacher and start > 0:
        most = min(teacher, key=teacher.__getitem__)
        fewer = [score for num, score in teacher.items() if num < most]
        found["watch/teacher_to_start"] = teacher[most] / max([start, *fewer])
        found["watch/score_to_start"] = now[primary] / start
        if teacher[most] > 0:
            found["watch/score_to_teacher"] = now[primary] / teacher[most]
    return found
