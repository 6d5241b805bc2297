"""Sampling speed on this machine: a run's student against its guided teacher in many steps."""

from pathlib import Path
from statistics import median

import torch

from dmd2.benchmarks.timer import now
from dmd2.diffusion.solvers import DDIM
from dmd2.distributed.device import device_of
from dmd2.evaluation.samples import Dtype, Sampling, TeacherSampling, computed_in
from dmd2.nets.lora import base_of
from dmd2.runs.build import build_guidance
from dmd2.runs.load import load_student


@torch.no_grad()
def generation(
    source: Path | None,
    num_steps: int,
    batch_size: int,
    dtype: Dtype,
    num_cold: int,
    num_repeats: int,
) -> list[str]:
    """A table of seconds an image and images a second, from labels or captions to pixels.

    source       A run's directory. Its config.yaml is enough, since the values of weights do not
                 change how long an image takes; a student with LoRA needs its teacher's file.
    num_steps    The teacher's steps, by DDIM at the run's guidance.
    batch_size   Images at once.
    dtype        What networks compute in under autocast, e.g. bfloat16; float32 is no autocast.
    num_cold     Batches of each that are not timed: they warm up kernels and caches.
    num_repeats  Batches of each that are timed, by turns; their median is shown.

    Raises ValueError without a source.
    """
    if source is None:
        raise ValueError("this part times a run's student; type source=runs/EXPERIMENT/latest")
    student = load_student(source)
    # The teacher's network is the student's, on the same tensors, without LoRA where it has one:
    # so no second network has to fit into memory.
    network, conditioner, data = base_of(student.generator), student.conditioner, student.data
    device, guidance = device_of(network), build_guidance(student.config["teacher"])
    # Both make the same samples, of the same captions: seed 0.
    samples = student.sample_set(0)
    samplings: dict[str, Sampling] = {
        f"teacher, guidance {guidance:g}": TeacherSampling(
            network, conditioner, DDIM(num_steps), guidance
        ),
        "student": student.sampling(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in samplings}
    with computed_in(dtype, device):
        for _ in range(num_cold + num_repeats):
            for name, sampling in samplings.items():
                start = now()  # waits for the device, here and below
                data.to_pixels(samples.make(sampling, range(batch_size))[0])
                seconds[name].append((now() - start) / batch_size)
    # NFE is of the network; a guided teacher's evaluation is a batch of twice the size.
    found = {name: median(times[num_cold:]) for name, times in seconds.items()}
    teacher, ours = found.values()
    lines = [
        f"| {name} | {sampling.num_evaluations} | {found[name]:.3g} | {1 / found[name]:.3g} |"
        for name, sampling in samplings.items()
    ]
    times = f"{batch_size} at once, {dtype}; the student is {teacher / ours:.3g} times as fast"
    return ["| samples | NFE | s an image | images/s |", "|---|---|---|---|", *lines, times]
