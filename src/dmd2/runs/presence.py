"""Whether devices, files, packages and room are there that a config asks for; nothing is written.

Only what is cheap to see: no data is decoded and no weights are read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException

from dmd2.config.check import Config
from dmd2.config.devices import check_started
from dmd2.config.missing import Lack
from dmd2.data.preparation.folder import is_prepared, open_prepared
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.shown import in_one_line
from dmd2.nets.lora import require_peft
from dmd2.runs.build import build, build_data
from dmd2.runs.pipeline_source import single_file, with_lender
from dmd2.runs.requirements import (
    check_labels,
    check_objective,
    check_starting_files,
    step_layer,
)
from dmd2.runs.resume import checkpoint_of
from dmd2.runs.room import check_disk, check_memory
from dmd2.runs.teacher import teacher_file
from dmd2.training.callbacks.run_logger import require_package


def check_there(config: Config) -> None:
    """Raise ValueError, or `Missing`, with everything that is not there."""
    lack = note_lack(config)
    if lack:
        # Its networks are read: where nothing else is missing, once, with the run's other parts.
        with lack.noted():
            _try(config["metric"])
    lack.raise_all()


def note_lack(config: Config) -> Lack:
    """What a run lacks: devices, packages, files of data, teacher and losses."""
    lack = note_teacher_lack(config)
    with lack.noted():
        if any(config.get("lora", {}).values()):
            require_peft()
    for name in {"wandb", "tensorboard"} & set(config["logger"]):
        with lack.noted():
            require_package(name)
    with lack.noted():
        check_starting_files(config)
    with lack.noted():
        _try(with_lender(config)["loss"])  # LPIPS says what it lacks
    return lack


def note_teacher_lack(config: Config) -> Lack:
    """What a teacher lacks: devices, files of data and of its own."""
    lack = Lack()
    with lack.noted():
        check_started(config)
    with lack.noted():
        check_data(config["data"])
    with lack.noted():
        check_captions(config["data"].get("captions"))
    with lack.noted():
        if teacher_weights(config) is None:
            check_guided(config["teacher"])
    # Of a model in one file the configs' pipeline is looked at; without it there is nothing to see.
    with lack.noted():
        if (autoencoder := with_lender(config)["teacher"].get("autoencoder")) is not None:
            _try(autoencoder).require()
    return lack


def check_guided(section: Config) -> None:
    """Raise ValueError where a teacher that is trained here is guided and would never see the
    unconditional case.
    """
    dropout = section["pretrain"]["module"].get("condition_dropout")
    if section["guidance"] != 1.0 and not dropout:
        raise ValueError(
            "guidance needs a teacher that knows the unconditional case; "
            "type +teacher.pretrain.module.condition_dropout=0.1, or teacher.guidance=1.0"
        )


def teacher_weights(config: Config) -> Path | None:
    """`teacher_file`, or the file that a `teacher.source` is.

    Raises as `teacher_file` and `single_file`.
    """
    path = single_file(config)
    is_overruled = config["teacher"]["weights"] is not None
    return teacher_file(config) if path is None or is_overruled else path


def check_data(node: Config) -> None:
    """Raise FileNotFoundError where there is nothing at `data.source`."""
    source = node.get("source")
    if isinstance(source, str) and not Path(source).exists():
        hint = node.get("hint") or "type data.source=PATH of what there is"
        raise FileNotFoundError(f"no data at {source}; {hint}")
    if isinstance(source, str) and is_prepared(Path(source)):
        open_prepared(Path(source))  # it compares sizes alone


def check_at_hand(config: Config) -> None:
    """Raise ValueError where data that are at hand do not fit teacher, loss or sampling steps."""
    if {"source", "captions"} & config["data"].keys():
        return
    teacher, data = config["teacher"]["conditioner"], build_data(config["data"])
    if "num_classes" in teacher:
        check_labels(_try(teacher), data)
    check_objective(_try(config["loss"]), _try(config["sampler"]), config, data)


def check_folder(key: str, path: Path) -> None:
    """Raise ValueError where no folder can be made or written at a path."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{key}={path}, and {there} is no folder to write in; type {key}=DIR")


def check_captions(node: Any) -> None:
    """Raise FileNotFoundError, in the reader's words, where a file of captions is not there."""
    source = node.get("source") if isinstance(node, Mapping) else None
    sources = source if isinstance(source, list) else [source]
    # Those that are there are not read here: they may be millions.
    if any(isinstance(path, str) and not Path(path).exists() for path in sources):
        _try(node)


def check_run(config: Config) -> str:
    """One line that says what `dmd2 train` would do; raises as `check_there`.

    Also where there is no room for the checkpoints or the weights, or the run cannot be resumed.
    """
    lack = note_lack(config)
    with lack.noted():
        _try(config["metric"])
    with lack.noted():
        _try(config["sampler"])
    with lack.noted():
        check_at_hand(config)
    for name in ("run", "cache"):
        with lack.noted():
            check_folder(f"paths.{name}", Path(config["paths"][name]))
    with lack.noted():
        checkpoint = checkpoint_of(config)
    with lack.noted():
        path = teacher_weights(config)
        denoiser = network_on_meta(with_lender(config))
        if (layer := step_layer(config)) is not None:
            denoiser.layer(layer, "critic_step_layer")
        num = sum(parameter.numel() for parameter in denoiser.parameters())
        check_disk(config, num)
        check_memory(config, num)
    lack.raise_all()
    begin = f"from {checkpoint.path} " if checkpoint is not None else ""
    pretrain = config["teacher"]["pretrain"]
    teacher = (
        f"the teacher {path}"
        if path is not None
        else f"a teacher trained first, {pretrain['max_iterations']:,} iterations, unless "
        f"{config['paths']['cache']}/teachers has it"
    )
    return (
        f"would train {config['name']} {begin}into {config['paths']['run']}: "
        f"{config['max_iterations']:,} iterations, a generator of {num:,} parameters, {teacher}"
    )


def network_on_meta(config: Config) -> Denoiser:
    """The teacher's network, which is the generator's; no memory is taken for it."""
    with torch.device("meta"):
        denoiser: Denoiser = _try(config["teacher"]["denoiser"])
    return denoiser


def _try(node: Any) -> Any:
    """Build a node; an error is the constructor's own, without Hydra's words around it."""
    try:
        return build(node)
    except InstantiationException as error:
        cause = error.__cause__ or error
        # A slip of ours, or arithmetic on a 0 that a user typed: Hydra's words name the class.
        if not isinstance(cause, (ValueError, OSError, ImportError)):
            cause = ValueError(in_one_line(error))
    # Not in the handler: a cause whose context is what it caused is a circle.
    raise cause
