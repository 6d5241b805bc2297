"""From a config to objects, and from a run directory to objects: the only place that instantiates."""

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from dmd2.callbacks.interrupt import Interrupt
from dmd2.callbacks.progress import Progress
from dmd2.conditioning import Conditioner
from dmd2.config import Config
from dmd2.data.base import DataModule
from dmd2.data.pairs import PairWriter
from dmd2.generation import Numbered, TeacherMaker
from dmd2.losses.objective import Objective
from dmd2.losses.view import Models
from dmd2.module import DMD
from dmd2.nets.critic import Critic, head_on
from dmd2.nets.denoiser import Denoiser
from dmd2.pretrain import Pretrain
from dmd2.quiet import quiet
from dmd2.randomness import seeded
from dmd2.sampling import FewStepSampler, Heun
from dmd2.scoring import References, Scoring
from dmd2.weights.store import load_weights, save_weights


class Teacher:
    """A frozen teacher, its conditioner, and the key of what it is: the name of all that is derived from it."""

    def __init__(self, denoiser: Denoiser, conditioner: Conditioner, key: str) -> None:
        self.denoiser = denoiser.requires_grad_(False).eval()
        self.conditioner, self.key = conditioner, key


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a config node with plain containers."""
    return instantiate(OmegaConf.create(node), _convert_="all", **extra)


def key_of(*parts: Any) -> str:
    """A short hash of plain values: the name of something cached."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def device_for(config: Config) -> torch.device:
    """Where a run's networks work outside of a trainer: the GPU if the run used one and there is one here."""
    on_gpu = config["trainer"]["accelerator"] == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def check_hardware(config: Config) -> None:
    """Raise ValueError where the trainer wants what this machine or this version does not have."""
    section = config["trainer"]
    if section["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ValueError("this experiment wants a GPU, and there is none here; type trainer=cpu")
    if section["devices"] != 1 or section.get("num_nodes", 1) != 1:
        raise ValueError(f"only one device is supported so far, got trainer.devices={section['devices']}")


def build_data(node: Config) -> DataModule:
    """The data module, prepared and set up."""
    data: DataModule = build(node)
    data.prepare_data()
    data.setup()
    return data


def build_teacher(config: Config, data: DataModule) -> Teacher:
    """The teacher that a config names: read from `teacher.weights`, else trained on data, once, and kept.

    Raises ValueError where it does not fit the data.
    """
    section = config["teacher"]
    with seeded(0, "teacher"):
        denoiser: Denoiser = build(section["denoiser"])
    conditioner = build(section["conditioner"])
    check_fit(denoiser, conditioner, data)
    if section["weights"] is not None:
        path = Path(section["weights"])
        load_weights(denoiser, path)
        return Teacher(denoiser, conditioner, key_of(str(path.resolve()), path.stat().st_mtime_ns))
    if section["guidance"] != 1.0 and not section["pretrain"]["module"].get("condition_dropout"):
        raise ValueError(
            "guidance needs a teacher that knows the unconditional case; "
            "type +teacher.pretrain.module.condition_dropout=0.1, or teacher.guidance=1.0"
        )
    own = {**config["data"], **section["pretrain"]["data"]}
    own_data = build_data(own)
    drawn = [own.get(name) for name in ("batch_size", "seed", "flip")]
    key = key_of(section["denoiser"], section["conditioner"], section["pretrain"], drawn, own_data.fingerprint())
    path = Path(config["paths"]["cache"]) / "teachers" / f"{key}.safetensors"
    if not path.exists():
        save_weights(train_teacher(config, denoiser, conditioner, own_data), path)
    load_weights(denoiser, path)
    return Teacher(denoiser, conditioner, key)


def check_fit(denoiser: Denoiser, conditioner: Conditioner, data: DataModule) -> None:
    """Raise ValueError where the network does not take this data's shape or labels."""
    if conditioner.num_classes and not data.num_classes:
        raise ValueError(
            f"the teacher wants one of {conditioner.num_classes} classes, and this data has no labels; "
            "choose an unconditional teacher, or data in class folders"
        )
    if 0 < conditioner.num_classes < data.num_classes:
        raise ValueError(
            f"the data has labels up to {data.num_classes - 1}, out of range for a teacher of "
            f"{conditioner.num_classes} classes; choose another teacher or data"
        )
    try:
        with torch.no_grad():
            cond = conditioner(torch.zeros(1, dtype=torch.long))
            shape = denoiser(torch.zeros(1, *data.shape), torch.ones(1), cond).shape
    except RuntimeError as error:
        raise ValueError(f"the teacher does not take samples of shape {data.shape}: {error}") from error
    if tuple(shape[1:]) != data.shape:
        raise ValueError(f"the teacher makes samples of shape {tuple(shape[1:])}, the data has {data.shape}")


def train_teacher(config: Config, denoiser: Denoiser, conditioner: Conditioner, data: DataModule) -> Denoiser:
    """A teacher trained from data by `teacher.pretrain`."""
    section = config["teacher"]["pretrain"]
    module: Pretrain = build(section["module"], denoiser=denoiser, conditioner=conditioner)
    bar = Progress("teacher", section["max_iterations"], {"pretrain/loss": "loss"})
    interrupt = Interrupt()
    trainer = build_trainer(config, section["max_iterations"], [bar, interrupt], logger=False)
    trainer.fit(module, datamodule=data)
    if interrupt.received:
        raise KeyboardInterrupt
    module.faults.check()
    return module.trained()


def build_trainer(config: Config, max_steps: int, callbacks: list[L.Callback], logger: Any) -> L.Trainer:
    """A Lightning trainer that leaves bars, checkpoints and logging to our callbacks."""
    quiet()
    return build(
        config["trainer"],
        max_steps=max_steps,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=config["paths"]["run"],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, L.pytorch.callbacks.Checkpoint) for c in callbacks),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def make_pairs(config: Config, teacher: Teacher, data: DataModule) -> Path:
    """DMD's noise-image pairs of this teacher, made once; begun again, it goes on where it stopped."""
    section = config["pairs"]
    key = key_of(teacher.key, section["num_steps"], section["dtype"], config["teacher"]["guidance"])
    folder = Path(config["paths"]["cache"]) / "pairs" / f"{key}-{section['num_pairs']}"
    writer = PairWriter(folder, section["num_pairs"], data.shape, section["dtype"], key)
    maker = TeacherMaker(
        teacher.denoiser, teacher.conditioner, Heun(section["num_steps"]), config["teacher"]["guidance"]
    )
    device = device_for(config)
    teacher.denoiser.to(device)
    numbered = Numbered(data.shape, teacher.conditioner.num_classes, 1, device)
    with tqdm(total=section["num_pairs"], initial=writer.complete, desc="pairs", unit="pair") as bar:
        while writer.complete < section["num_pairs"]:
            rows = range(section["num_pairs"])[writer.complete : writer.complete + 500]
            writer.append(*numbered.pairs(maker, rows))
            bar.update(len(rows))
    return folder


def build_objective(config: Config, data: DataModule) -> Objective:
    """The loss terms; raises ValueError where one needs data that there is not."""
    objective: Objective = build(config["loss"])
    provided = data.provides() | ({"pairs"} if config["pairs"] is not None else set())
    if missing := objective.needs - provided - {"head"}:
        name = min(missing)
        raise ValueError(
            f"a loss term needs {name}, and the data gives only {', '.join(sorted(provided))}; type "
            + ("experiment=digits_dmd, whose file shows how" if name == "pairs" else "loss=no_gan")
        )
    if "head" in objective.needs and not config["teacher"]["denoiser"].get("taps"):
        raise ValueError("a GAN term needs features; name layers with teacher.denoiser.taps=[LAYER,...]")
    return objective


def make_references(config: Config, scoring: Scoring, teacher: Teacher) -> References:
    """The scores to compare with; kept under the teacher's and the metric's key."""
    guidance = config["teacher"]["guidance"]
    key = key_of(teacher.key, config["metric"], guidance, scoring.data.fingerprint())
    cache = Path(config["paths"]["cache"]) / "references" / f"{key}.json"
    return scoring.references(teacher.denoiser, guidance, cache)


def build_module(
    config: Config, objective: Objective, sampler: FewStepSampler, teacher: Teacher, data: DataModule
) -> DMD:
    """Generator and critic as copies of the teacher, and a fresh head where a term needs one."""
    # Copies stay in eval mode like their teacher: distillation runs without dropout.
    generator, fake = (copy.deepcopy(teacher.denoiser).requires_grad_(True) for _ in range(2))
    head = None
    if "head" in objective.needs:
        with seeded(config["seed"], "head"):
            level = build(config["teacher"]["head"])
            cond = teacher.conditioner(torch.zeros(1, dtype=torch.long))
            head = head_on(teacher.denoiser, level, data.shape, cond)
    critic = Critic(fake, head, config["head_reads"])
    optimizer = build(config["optimizer"])
    module = DMD(
        Models(teacher.denoiser, critic, teacher.conditioner),
        generator,
        objective,
        sampler,
        {player: optimizer[player] for player in ("generator", "critic")},
        optimizer["lr_factor"],
        **{key: config[key] for key in MODULE_KEYS},
    )
    if config["weights"] is not None:
        load_weights(module.generator, Path(config["weights"]))
    return module


MODULE_KEYS = ("critic_updates", "max_grad_norm", "accumulate", "ema", "log_every", "seed")


@dataclass(frozen=True)
class Student:
    """A run's generator, ready to sample from and to score."""

    config: Config
    generator: Denoiser
    scoring: Scoring


def load_student(run: Path, weights: str | None) -> Student:
    """Read a run directory; `weights` names an average or "raw", None is the run's first.

    Raises FileNotFoundError where there is no run, or one without weights.
    """
    if not (run / "config.yaml").exists():
        raise FileNotFoundError(f"there is no run at {run}; name a run's directory: run=runs/digits_dmd2/latest")
    config: Config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))  # type: ignore[assignment]
    generator: Denoiser = build(config["teacher"]["denoiser"])
    read_student(run, config, weights, generator)
    scoring: Scoring = build(config["metric"])
    scoring.attach(build_data(config["data"]), build(config["teacher"]["conditioner"]), build(config["sampler"]))
    return Student(config, generator.requires_grad_(False).eval().to(device_for(config)), scoring)


def student_names(config: Config) -> list[str]:
    """The names of a run's weights: averages first, then the raw ones."""
    return [*(f"ema_{decay:g}" for decay in config["ema"]), "raw"]


def read_student(run: Path, config: Config, weights: str | None, generator: Denoiser) -> None:
    """Fill a generator with some of a run's weights; raises ValueError where it has none of this name."""
    if weights is None:
        load_weights(generator, run / "checkpoints" / "student.safetensors")
        return
    if weights not in (names := student_names(config)):
        raise ValueError(f"this run has no weights {weights!r}; choose from {', '.join(names)}")
    prefix = "generator." if weights == "raw" else f"ema.models.{names.index(weights)}."
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    generator.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
