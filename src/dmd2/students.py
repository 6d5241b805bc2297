"""From a run directory to a generator that samples and is scored."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from dmd2.checkpoints import load, newest
from dmd2.config import Config
from dmd2.nets.denoiser import Denoiser
from dmd2.runtime import build, build_data, device_for, load_fitting
from dmd2.scoring import Scoring
from dmd2.weights.store import load_weights


@dataclass(frozen=True)
class Student:
    """A run's generator, ready to sample from and to score."""

    config: Config
    generator: Denoiser
    scoring: Scoring


def load_student(run: Path, weights: str | None) -> Student:
    """Read a run directory; `weights` names an average, "raw" or a file, None is the run's first average.

    Raises FileNotFoundError where there is no run, or one without weights.
    """
    if not (run / "config.yaml").exists():
        raise FileNotFoundError(f"there is no run at {run}; name a run's directory: run=runs/digits_dmd2/latest")
    config: Config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))  # type: ignore[assignment]
    generator: Denoiser = build(config["teacher"]["denoiser"])
    if weights is None:
        load_weights(generator, run / "checkpoints" / "student.safetensors")
    elif weights.endswith(".safetensors"):
        load_fitting(generator, Path(weights), config["teacher"])
    else:
        names = [f"ema_{decay:g}" for decay in config["ema"]]
        if weights not in (*names, "raw"):
            raise ValueError(f"this run has no weights {weights!r}; choose from {', '.join((*names, 'raw'))}")
        prefix = "generator." if weights == "raw" else f"ema.models.{names.index(weights)}."
        path = newest(run / "checkpoints")
        if path is None:
            raise FileNotFoundError(f"{run} has no checkpoint, so no {weights} weights; leave `weights` alone")
        state = load(path)["state_dict"]
        generator.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    scoring: Scoring = build(config["metric"])
    device = device_for(config)
    conditioner = build(config["teacher"]["conditioner"]).to(device)
    scoring.attach(build_data(config["data"]), conditioner, build(config["sampler"]))
    return Student(config, generator.requires_grad_(False).eval().to(device), scoring)
