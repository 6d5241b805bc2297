"""Scores of what each step of a few-step student makes, and of all steps' samples in one set."""

from pathlib import Path

import torch

from dmd2.diffusion.sampling import FewStepSampler
from dmd2.evaluation.samples import GeneratorSampling
from dmd2.evaluation.scoring import device_of
from dmd2.runs.load import load_student


def steps(source: Path | None) -> list[str]:
    """A table of the run's own metrics for its first average, a row a step.

    To a critic that is not told the step the samples of all steps are one mixture, and that is what
    is matched. Where
    "together" scores better than each step, the last one pays for the first.

    source  A run's directory.
    """
    if source is None:
        raise ValueError("this part scores a run's student; type source=runs/EXPERIMENT/latest")
    student = load_student(source)
    student.read(None)
    evaluator, device, data = student.evaluator(), device_of(student.generator), student.data
    evaluator.fit(device)
    num, times = evaluator.counts.numbers[-1], student.sampler.times
    samples = evaluator.sample_set(device)
    made = {}
    for i, t in enumerate(times):
        sampler = FewStepSampler(times[: i + 1])
        sampling = GeneratorSampling(student.generator, student.conditioner, sampler)
        batches = samples.batches(sampling, range(num), evaluator.batch_size)
        made[f"t = {t:g}"] = torch.cat([x.cpu() for x, _ in batches])
    # Every step gives as many samples of every class to the set of all.
    step = torch.arange(num) // max(student.conditioner.num_classes, 1) % len(times)
    made["together"] = torch.stack(list(made.values()))[step, torch.arange(num)]
    labels = data.class_of(samples.labels(range(num)).cpu())
    lines = []
    for name, x0 in made.items():
        scores = evaluator.suite.evaluate([(data.to_pixels(x0), labels)])
        lines += [
            f"| {name} | {x0.std():.3f} | "
            f"{' | '.join(f'{value:.3g}' for value in scores.values())} |"
        ]
    columns = ["samples", "std", *scores]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines]
