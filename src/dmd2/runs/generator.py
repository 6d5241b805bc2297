"""The generator of a run's directory, as it is before its weights are read: whole, or LoRA on the
teacher's weights.
"""

from pathlib import Path

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.tensors import read_metadata
from dmd2.runs.build import build
from dmd2.runs.copies import LoRA, copy_for
from dmd2.runs.teacher import build_teacher, teacher_file


def build_generator(run: Path, config: Config, data: DataModule) -> Denoiser:
    """The generator of a run; raises as `generator_on_teacher`."""
    # With LoRA the weights lie on the teacher's file; else the student's own file has all.
    copy = copy_for(config, "generator")
    if isinstance(copy, LoRA):
        return generator_on_teacher(run, config, data, copy)
    generator: Denoiser = build(config["teacher"]["denoiser"])
    return generator


def generator_on_teacher(run: Path, config: Config, data: DataModule, lora: LoRA) -> Denoiser:
    """The generator of a run with LoRA, whose weights lie on the teacher's.

    Raises FileNotFoundError where the teacher's file is gone, and ValueError where it is another
    than in training.
    """
    teacher = build_teacher(config, data, teacher_file(config))
    teacher.load()
    trained_on = read_metadata(run / "checkpoints" / "student.safetensors").get("teacher")
    if trained_on not in (None, teacher.sha256):
        raise ValueError(
            f"{teacher.path} is not the teacher that the LoRA of {run} was trained on; "
            "bring that back"
        )
    generator = lora.network(teacher.denoiser)
    # After LoRA was put on it: the frozen weights are narrowed, LoRA's own stay float32.
    teacher.cast_weights()
    return generator
