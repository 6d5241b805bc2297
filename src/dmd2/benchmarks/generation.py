"""Seconds an image takes the teacher, guided and in many steps, and a run's student, on this
machine in one go.
"""

from pathlib import Path
from statistics import median

import torch

from dmd2.benchmarks.iteration import now
from dmd2.diffusion.solvers import DDIM
from dmd2.evaluation.samples import Sampling, TeacherSampling
from dmd2.evaluation.scoring import device_of
from dmd2.nets.lora import base_of
from dmd2.runs.load import load_student


@torch.no_grad()
def generation(
    source: Path | None,
    num_steps: int,
    batch_size: int,
    dtype: str,
    num_cold: int,
    num_repeats: int,
) -> list[str]:
    """A table of seconds an image and images a second, from labels or captions to pixels.

    The teacher's network is the student's, without LoRA where the student has it.

    source       A run's directory; its config.yaml is enough, since weights do not change how long
                 an image takes,
                 but for a student with LoRA, which lies on its teacher's file.
    num_steps    Of the teacher's, by DDIM, at the run's guidance.
    batch_size   Images at once.
    dtype        What networks compute in under autocast, e.g. bfloat16; float32 is without.
    num_cold     Batches of each before those that are timed.
    num_repeats  The median of so many counts; teacher and student take turns.
    """
    if source is None:
        raise ValueError("this part times a run's student; type source=runs/EXPERIMENT/latest")
    student = load_student(source)
    network, conditioner, data = base_of(student.generator), student.conditioner, student.data
    device, guidance = device_of(network), student.config["teacher"]["guidance"]
    samples = student.sample_set(0)
    samplings: dict[str, Sampling] = {
        f"teacher, guidance {guidance:g}": TeacherSampling(
            network, conditioner, DDIM(num_steps), guidance
        ),
        "student": student.sampling(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in samplings}
    with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        for _ in range(num_cold + num_repeats):
            for name, sampling in samplings.items():
                start = now()
                data.to_pixels(samples.make(sampling, range(batch_size))[0])
                seconds[name].append((now() - start) / batch_size)
    found = {name: median(times[num_cold:]) for name, times in seconds.items()}
    teacher, ours = found.values()
    lines = [
        f"| {name} | {sampling.num_evaluations} | {found[name]:.3g} | {1 / found[name]:.3g} |"
        for name, sampling in samplings.items()
    ]
    times = f"{batch_size} at once, {dtype}; the student is {teacher / ours:.3g} times as fast"
    return ["| samples | NFE | s an image | images/s |", "|---|---|---|---|", *lines, times]
