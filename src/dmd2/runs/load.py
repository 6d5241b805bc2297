"""From a run directory to a generator that samples and is scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from dmd2.config.batch_size import share_batch
from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.distributed import process_group
from dmd2.evaluation.partial_sums import Sums
from dmd2.evaluation.samples import GeneratorSampling
from dmd2.evaluation.scoring import Scoring
from dmd2.io.files import key_of, sha256
from dmd2.io.tensors import load_weights, read_metadata
from dmd2.runs.assemble import lora_of, player_on
from dmd2.runs.build import (
    build,
    build_data,
    build_teacher,
    conditioner_of,
    device_for,
    load_denoiser,
    load_fitting,
    shrink,
)
from dmd2.training.checkpoints import load, newest


@dataclass(frozen=True)
class Student:
    """A run's generator, with all that sampling from it takes."""

    run: Path
    config: Config
    generator: Denoiser
    data: DataModule
    conditioner: Conditioner
    sampler: FewStepSampler

    @property
    def names(self) -> list[str]:
        """The names of the run's weights: averages first, then the raw ones."""
        return [*(f"ema_{decay:g}" for decay in self.config["ema"]), "raw"]

    def read(self, weights: str | None) -> None:
        """Fill the generator: from an average, "raw" or a file; None is the run's first average.

        Raises ValueError or FileNotFoundError where there is nothing of this name.
        """
        if weights is None:
            load_weights(self.generator, self.run / "checkpoints" / "student.safetensors")
        elif weights.endswith(".safetensors"):
            load_fitting(self.generator, Path(weights), self.config["teacher"])
        elif weights not in self.names:
            raise ValueError(
                f"this run has no weights {weights!r}; choose from {', '.join(self.names)}"
            )
        elif (path := newest(self.run / "checkpoints")) is None:
            raise FileNotFoundError(
                f"{self.run} has no checkpoint, so no {weights} weights; leave `weights` alone"
            )
        else:
            prefix = (
                "generator." if weights == "raw" else f"ema.models.{self.names.index(weights)}."
            )
            state = {
                k.removeprefix(prefix): v
                for k, v in load(path)["state_dict"].items()
                if k.startswith(prefix)
            }
            self.generator.load_state_dict(state)

    def maker(self) -> GeneratorSampling:
        """What makes samples, as the run's sampler does."""
        return GeneratorSampling(self.generator, self.conditioner, self.sampler)

    def scoring(self) -> Scoring:
        """What scores samples by the config's metric."""
        scoring: Scoring = build(self.config["metric"])
        scoring.attach(self.data, self.conditioner, self.sampler)
        return scoring

    def sums(self) -> Sums:
        """Where the score of what the generator is filled with is kept while it is made."""
        parts = [self.config[name] for name in ("metric", "sampler", "teacher", "data")]
        return Sums(
            self.run / "scoring", key_of(*parts, process_group.digest(self.generator.state_dict()))
        )


def on_ranks(run: Path, work: Callable[[], None]) -> None:
    """Do work on a run's student, alone or as one of the ranks that torchrun started, of whom rank
    0 alone prints.
    """
    with process_group.process_group(device_for(config_of(run)).type == "cuda"):
        work()


def config_of(run: Path) -> Config:
    """The configuration in a run directory; raises FileNotFoundError where there is no run."""
    if not (run / "config.yaml").exists():
        raise FileNotFoundError(
            f"there is no run at {run}; name a run's directory: run=runs/digits_dmd2/latest"
        )
    config: Config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))  # type: ignore[assignment]
    share_batch(config)  # done already, but in a file that `--cfg job` wrote
    return config


def load_student(run: Path, metric: Config | None = None) -> Student:
    """Read a run directory; its generator has no weights until `Student.read`.

    metric  Another metric than the run's own, a section that may refer to the run's config.

    Raises FileNotFoundError where there is no run.
    """
    config = config_of(run)
    if metric is not None:
        composed = OmegaConf.create(config | {"metric": metric})
        config = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    data, sampler = build_data(config["data"]), build(config["sampler"])
    generator: Denoiser = lora_on_teacher(run, config, data) or build(config["teacher"]["denoiser"])
    generator.requires_grad_(False).eval().to(device_for(config))
    conditioner = build(conditioner_of(config["teacher"])).to(device_for(config))
    return Student(run, config, generator, data, conditioner, sampler)


def lora_on_teacher(run: Path, config: Config, data: DataModule) -> Denoiser | None:
    """The generator of a run with LoRA, whose weights lie on the teacher's; None of any other run.

    Raises FileNotFoundError where the teacher's file is gone, and ValueError where it is another
    than in training.
    """
    if lora_of(config, "generator") is None:
        return None
    teacher = build_teacher(config, data)
    load_denoiser(teacher.denoiser, teacher.path)
    said = read_metadata(run / "checkpoints" / "student.safetensors").get("teacher")
    if said not in (None, sha256(teacher.path)):
        raise ValueError(
            f"{teacher.path} is not the teacher that the LoRA of {run} was trained on; bring that "
            "back"
        )
    network = player_on(teacher.denoiser, config, "generator")
    shrink(teacher, config)  # and so what the network lies on, while its own stays float32
    return network
