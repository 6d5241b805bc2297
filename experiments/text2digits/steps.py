"""Scores of what each step of a few-step student makes, and of all steps' samples in one set: python steps.py RUN"""

import sys
from pathlib import Path

import torch

from dmd2.generation import StudentMaker
from dmd2.sampling import FewStepSampler
from dmd2.students import load_student

student = load_student(Path(sys.argv[1]))
student.read(None)
scoring = student.scoring()
scoring.real_references(torch.device("cpu"))  # fits the suite
num, numbered, times = scoring.sizes.numbers[-1], scoring.numbered("cpu"), student.sampler.times
labels = student.data.class_of(numbered.labels(range(num)))
made = {}
for i in range(len(times)):
    maker = StudentMaker(student.generator, student.conditioner, FewStepSampler(times[: i + 1]))
    made[f"t = {times[i]}"] = torch.cat([x for x, _ in numbered.batches(maker, range(num), 500)])
# Each class comes at each step equally often.
step = torch.arange(num) // max(student.conditioner.num_classes, 1) % len(times)
made["all steps"] = torch.stack(list(made.values()))[step, torch.arange(num)]
for name, x0 in made.items():
    scores = scoring.suite.evaluate([(student.data.to_pixels(x0), labels)])
    print(f"{name}: std {x0.std():.3f},", ", ".join(f"{key} {value:.3g}" for key, value in scores.items()))
