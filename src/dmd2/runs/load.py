"""From a run's directory to its student, a generator that samples and is scored.

student = dmd2.load("runs/digits_dmd2/latest")
images = student.sample(16, seed=0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from dmd2.config.check import Config
from dmd2.config.values import check_whole, is_whole
from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import ClassLabels, Conditioner, missing_label
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.distributed.device import device_of
from dmd2.evaluation.partial_sums import PartialSums
from dmd2.evaluation.samples import GeneratorSampling, OneClassSampleSet, SampleSet
from dmd2.evaluation.scoring import Evaluator
from dmd2.io.files import key_of
from dmd2.io.hashed_tensors import check_hash, digest
from dmd2.io.tensors import load_weights
from dmd2.nets.text.prompts import Prompts
from dmd2.runs.build import build, build_data, device_for, set_tf32
from dmd2.runs.config_file import check_has
from dmd2.runs.generator import build_generator
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.run_config import config_of
from dmd2.runs.sizes import shape_at
from dmd2.runs.teacher import conditioner_of, identity_key
from dmd2.runs.weights import load_fitting
from dmd2.training.checkpoints import newest, read

OF_STUDENTS = ("ema", "metric", "name", "sampler", "teacher.conditioner", "teacher.denoiser")
"""Keys of a config that a student is made by."""


@dataclass(frozen=True)
class Student:
    """A run's generator, with all that sampling from it takes."""

    run: Path
    config: Config
    generator: Denoiser
    data: DataModule
    conditioner: Conditioner
    sampler: FewStepSampler
    shape: tuple[int, ...]
    size: Sequence[int] | None = None  # Height and width in pixels; None is the run's own.

    @property
    def names(self) -> list[str]:
        """The names of the run's weights: averages first, then the raw ones."""
        return [*(f"ema_{decay:g}" for decay in self.config["ema"]), "raw"]

    def read(self, weights: str | None) -> None:
        """Fill the generator: from an average, "raw" or a file; None is the run's first average.

        Raises ValueError or FileNotFoundError where there is nothing of this name, and
        ValueError where it is damaged.
        """
        if weights is None:
            path = self.run / "checkpoints" / "student.safetensors"
            check_hash(path)
            load_weights(self.generator, path)
        elif weights.endswith(".safetensors"):
            load_fitting(self.generator, Path(weights), self.config["teacher"])
        elif weights not in self.names:
            raise ValueError(
                f"this run has no weights {weights!r}; choose from {', '.join(self.names)}"
            )
        elif (checkpoint := newest(self.run / "checkpoints")) is None:
            raise FileNotFoundError(
                f"{self.run} has no checkpoint, so no {weights} weights; leave `weights` alone"
            )
        else:
            index = self.names.index(weights)
            prefix = "generator." if weights == "raw" else f"ema.models.{index}."
            state = read(checkpoint.path)["state_dict"]
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            self.generator.load_state_dict(own)

    def sample(
        self,
        num: int | None = None,
        seed: int = 0,
        batch_size: int = 100,
        label: int | None = None,
        prompts: Sequence[str] | None = None,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        """Images uint8 [num, C, H, W] on the generator's device; points are float32 [num, 2].

        Sample i depends on the seed and on i alone: the classes (or captions) come in turn.

        num      None is one of each prompt.
        label    One class, or caption, of which all samples are to be.
        prompts  Texts to draw in place of the run's captions.
        size     Height and width in pixels; None is the run's own.

        Raises ValueError where `num` or `batch_size` is no whole number of at least 1, `seed` none
        of at least 0, or `label` none of the classes, and for prompts where the student reads no
        text, or a size that it cannot make.
        """
        if size is not None:
            return self.at_size(size).sample(num, seed, batch_size, label, prompts)
        if prompts is not None:
            student = self.asked_for(prompts)
            return student.sample(len(prompts) if num is None else num, seed, batch_size, label)
        check_whole("num", num, 1)
        check_whole("batch_size", batch_size, 1)
        check_whole("seed", seed, 0)
        rows = range(num or 0)
        batches = self.sample_set(seed, label).batches(self.sampling(), rows, batch_size)
        return torch.cat([self.data.to_pixels(x0) for x0, _ in batches])

    def asked_for(self, prompts: Sequence[str]) -> "Student":
        """The same on these texts; raises ValueError where it reads none, or there are none."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts are a list of texts, got {prompts!r}")
        if not isinstance(self.conditioner, Prompts):
            raise ValueError(f"the student of {self.run} reads no text; leave the prompt out")
        conditioner = self.conditioner.of(prompts).to(device_of(self.generator))
        return replace(self, conditioner=conditioner)

    def at_size(self, size: Sequence[int]) -> "Student":
        """The same with images of this height and width in pixels, at the same noise levels.

        Raises ValueError where it cannot make them.
        """
        return replace(self, size=size, shape=shape_at(self.generator, self.data, size))

    def sampling(self) -> GeneratorSampling:
        """How samples are made: as the run's sampler does."""
        conditioner = self.conditioner.at_size(self.size)
        return GeneratorSampling(self.generator, conditioner, self.sampler)

    def sample_set(self, seed: int, label: int | None = None) -> SampleSet:
        """Samples by number, on the generator's device; sample i depends on the seed and i.

        label  As of `sample`.
        """
        device, num = device_of(self.generator), self.conditioner.num_classes
        if label is None:
            return SampleSet(self.shape, num, seed, device)
        if not num:
            raise ValueError(f"label={label}, and this student has no classes; leave label out")
        if not is_whole(label) or not 0 <= label < num:
            raise ValueError(missing_label(label, num, self.classes))
        return OneClassSampleSet(self.shape, num, seed, device, label)

    @property
    def classes(self) -> str:
        """What its labels number: classes, or captions."""
        return "classes" if isinstance(self.conditioner, ClassLabels) else "captions"

    def evaluator(self) -> Evaluator:
        """What scores samples by the config's metric."""
        protocol = build(self.config["metric"])
        return Evaluator(protocol, self.data, self.conditioner, self.sampler)

    def partial_sums(self) -> PartialSums:
        """Partial sums, in the run's folder `scoring/`, of a score of the present weights."""
        own = identity_key(self.config["teacher"], digest(self.generator.state_dict()))
        key = key_of(own, self.data.fingerprint(), self.config["metric"], self.config["sampler"])
        return PartialSums(self.run / "scoring", key)


def load(run: str | Path, weights: str | None = None, trust: bool = False) -> Student:
    """The student of a run's directory, on the GPU if the run used one and there is one here.

    weights  One of the run's averages, e.g. "ema_0.999", or "raw", or a generator's .safetensors;
             None is the first average.
    trust    Whether to call what the run's config names also where it is another user's, or no
             part of this program: a config is a program.

    Raises FileNotFoundError where there is no run, ValueError where it has no such weights or its
    config is not trusted.
    """
    student = load_student(Path(run), trust=trust)
    student.read(weights)
    return student


def load_student(run: Path, metric: Config | None = None, trust: bool = False) -> Student:
    """The student of a run directory; its generator has no weights until `Student.read`.

    metric  Another metric than the run's own, a section that may refer to the run's config.
    trust   As of `load`.

    Raises as `config_of`.
    """
    config = config_of(run, trust)
    check_has(run / "config.yaml", config, OF_STUDENTS)
    if metric is not None:
        # Its interpolations refer to the run's config, so both are resolved together.
        composed = OmegaConf.create(config | {"metric": metric})
        config = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    config = with_pipeline(config)
    set_tf32(config)
    data, sampler = build_data(config["data"]), build(config["sampler"])
    generator = build_generator(run, config, data)
    generator.requires_grad_(False).eval().to(device_for(config))
    conditioner = build(conditioner_of(config["teacher"])).to(device_for(config))
    return Student(run, config, generator, data, conditioner, sampler, data.shape)
