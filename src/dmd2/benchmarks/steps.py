"""Scores of each step of a few-step student, and of the samples of all steps mixed."""

from pathlib import Path

import torch
from torch import Tensor

from dmd2.distributed.device import device_of
from dmd2.evaluation.samples import GeneratorSampling
from dmd2.evaluation.scores import overall
from dmd2.runs.load import load_student
from dmd2.runs.score_table import cell, columns


def mixed(num: int, num_classes: int, num_steps: int) -> Tensor:
    """The step of each of `num` samples, int64 [num], whose classes go in turn.

    All steps are there as nearly alike as `num` allows, and a class gets all of them where it has
    as many samples.

    >>> mixed(6, num_classes=2, num_steps=3)
    tensor([0, 1, 1, 2, 2, 0])
    """
    i = torch.arange(num)
    # Within a round of classes from class to class, and from one round to the next.
    return (i % num_classes + i // num_classes) % num_steps


def steps(source: Path | None) -> list[str]:
    """A table of the run's own metrics for its first average, a row for each step.

    A critic without an embedding of the sampling step sees the samples of all steps as one mixture,
    and distribution matching makes that mixture fit the data. Where the row "together" scores
    better than each step, the last step makes up for errors of the first.

    source  A run's directory.

    Raises ValueError without one.
    """
    if source is None:
        raise ValueError("this part scores a run's student; type source=runs/EXPERIMENT/latest")
    student = load_student(source)
    student.read(None)
    evaluator, device, data = student.evaluator(), device_of(student.generator), student.data
    evaluator.fit(device)
    num, sampler = evaluator.counts.numbers[-1], student.sampler
    samples = evaluator.sample_set(device)
    made = {}
    for i, t in enumerate(sampler.times):
        # The student's walk, ended at step i: what the critic is trained on for that step.
        ended = type(sampler)(sampler.times[: i + 1])
        sampling = GeneratorSampling(student.generator, student.conditioner, ended)
        # On the host: all steps' samples are kept, for the mixture.
        batches = samples.batches(sampling, range(num), evaluator.batch_size)
        made[f"t = {t:g}"] = torch.cat([x.cpu() for x, _ in batches])
    step = mixed(num, max(student.conditioner.num_classes, 1), len(sampler.times))
    made["together"] = torch.stack(list(made.values()))[step, torch.arange(num)]
    labels = data.class_of(samples.labels(range(num)).cpu())
    lines = []
    for name, x0 in made.items():
        scores = overall(evaluator.suite.evaluate([(data.to_pixels(x0), labels)]))
        names = columns({"metrics": scores}, evaluator.primary)
        cells = " | ".join(cell(scores, metric) for metric in names)
        lines.append(f"| {name} | {x0.std():.3f} | {cells} |")
    head = ["samples", "std", *names]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]
