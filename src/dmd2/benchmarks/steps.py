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
    scoring, device, data = student.scoring(), device_of(student.generator), student.data
    scoring.real_references(device)  # what the suite compares with
    num, numbered, times = (
        scoring.sizes.numbers[-1],
        scoring.numbered(device),
        student.sampler.times,
    )
    made = {}
    for i, t in enumerate(times):
        maker = GeneratorSampling(
            student.generator, student.conditioner, FewStepSampler(times[: i + 1])
        )
        made[f"t = {t:g}"] = torch.cat(
            [x.cpu() for x, _ in numbered.batches(maker, range(num), scoring.batch_size)]
        )
    step = (
        torch.arange(num) // max(student.conditioner.num_classes, 1) % len(times)
    )  # each has each class as often
    made["together"] = torch.stack(list(made.values()))[step, torch.arange(num)]
    labels = data.class_of(numbered.labels(range(num)).cpu())
    lines = []
    for name, x0 in made.items():
        scores = scoring.suite.evaluate([(data.to_pixels(x0), labels)])
        lines += [
            f"| {name} | {x0.std():.3f} | "
            f"{' | '.join(f'{value:.3g}' for value in scores.values())} |"
        ]
    columns = ["samples", "std", *scores]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines]
