"""Words of other programs and misspelt paths: the nearest key or choice of this program."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmd2.config.calls import parameters_of, takes_any
from dmd2.config.folder import config_folder
from dmd2.config.keys import VERBS_OF_EXPERIMENTS, closest, node_at

_ITERATIONS = "max_iterations={value}; steps of sampling are sampler=four_step or sampler.times"
_RUN = "paths.run={value}"
_LR = "optimizer.generator.lr={value} optimizer.critic.lr={value}"
_BATCH = "global_batch={value} data.batch_size=null"
FOREIGN = {
    **dict.fromkeys(("num_steps", "steps", "num_inference_steps", "sampling_steps"), _ITERATIONS),
    **dict.fromkeys(
        (
            *("max_steps", "max_train_steps", "train_steps", "num_train_steps", "total_steps"),
            *("iterations", "num_iterations", "max_iters", "niter"),
            *("max_epochs", "epochs", "num_epochs"),
        ),
        "max_iterations={value}",
    ),
    **dict.fromkeys(("learning_rate", "lr"), _LR),
    **dict.fromkeys(("batch", "batch_size", "train_batch_size", "bs"), _BATCH),
    **dict.fromkeys(("output_dir", "outdir", "out", "save_dir", "log_dir", "logdir"), _RUN),
    **dict.fromkeys(
        ("dataset", "data_dir", "train_data_dir", "dataset_path", "data_path"),
        "data=images data.source={value}",
    ),
    **dict.fromkeys(("image_size", "img_size", "size", "resolution"), "data.resolution={value}"),
    **dict.fromkeys(("workers", "num_workers"), "data.num_workers={value}"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum"),
        "accumulate={value}",
    ),
    **dict.fromkeys(
        ("gradient_clip_val", "grad_clip", "clip_grad_norm", "grad_norm"), "max_grad_norm={value}"
    ),
    **dict.fromkeys(("log_every_n_steps", "log_interval", "logging_steps"), "log_every={value}"),
    **dict.fromkeys(
        ("save_every", "save_steps", "checkpointing_steps", "ckpt_every", "save_interval"),
        "checkpoint.every={value}",
    ),
    **dict.fromkeys(
        ("resume_from_checkpoint", "resume_from", "ckpt_path", "checkpoint_path"), "resume={value}"
    ),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "cfg", "guidance"), "teacher.guidance={value}"),
    **dict.fromkeys(
        ("pretrained_model_name_or_path", "model", "model_id", "pretrained"),
        "teacher=pipeline teacher.source={value}",
    ),
    **dict.fromkeys(("mixed_precision", "precision"), "trainer.precision={value}"),
    **dict.fromkeys(("fp16",), "trainer.precision=16-mixed"),
    **dict.fromkeys(("bf16",), "trainer.precision=bf16-mixed"),
    **dict.fromkeys(
        ("gpus", "num_gpus", "devices", "n_gpus", "nproc_per_node"),
        "trainer=ddp trainer.devices={value}",
    ),
    **dict.fromkeys(("nodes", "num_nodes"), "trainer=ddp trainer.num_nodes={value}"),
    **dict.fromkeys(("ema_decay", "ema_rate"), "ema=[{value}]"),
    **dict.fromkeys(("dfake_gen_update_ratio", "ttur", "n_critic"), "critic_updates={value}"),
    **dict.fromkeys(("report_to", "wandb", "use_wandb", "log_with"), "logger=wandb"),
    **dict.fromkeys(("num_samples", "n_samples"), "metric.num_samples={value}"),
    **dict.fromkeys(("device", "accelerator"), "trainer={device}"),
}
"""Keys of other programs, by their last part, and what to type here."""
CHOICES = {
    "logger": {
        "tb": "logger=tensorboard",
        "none": "logger=csv",
        **dict.fromkeys(("mlflow", "comet", "neptune"), "logger=wandb, or logger=tensorboard"),
    },
    "trainer": {"cuda": "trainer=gpu", "mps": "trainer=cpu", "tpu": "trainer=cpu"}
    | {"distributed": "trainer=ddp", "multi_gpu": "trainer=ddp", "deepspeed": "trainer=fsdp"},
    "optimizer": {"adam": "optimizer=adamw optimizer.generator.weight_decay=0"},
    "launcher": {"submitit": "launcher=slurm", "submitit_slurm": "launcher=slurm"},
    "recipe": {"pairs": "dmd2 pairs experiment=NAME"},
}
"""Choices that a user may look for in a group that has none such, and what to type instead."""


def translated(path: str, value: str) -> str | None:
    """What to type for a key of another program; None where it is not known."""
    form = FOREIGN.get(path.rpartition(".")[2])
    if form is None:
        return None
    on_gpu = value.startswith(("cuda", "gpu"))
    return form.format(value=value or "VALUE", device="gpu" if on_gpu else "cpu")


def skeleton(verb: str, overrides: list[str]) -> dict[str, Any]:
    """The config of a command with its chosen groups and no other override.

    {} where even these do not compose.
    """
    folder = config_folder()
    groups = [o for o in overrides if (folder / o.partition("=")[0].lstrip("+")).is_dir()]
    name = "train" if verb in VERBS_OF_EXPERIMENTS else verb
    try:
        with _hydra(folder):
            node = compose(name, overrides=groups)
    except (HydraException, OmegaConfBaseException):
        return {}
    return OmegaConf.to_container(node)  # type: ignore[return-value]


def _hydra(folder: Path) -> AbstractContextManager[Any]:
    # A sweep's jobs run where Hydra composes already, perhaps with a user's folder, too.
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return initialize_config_dir(str(folder), version_base="1.3")


def did_you_mean(path: str, value: str, config: Mapping[str, Any], verb: str) -> str:
    """The hint for a key that a config has not: the nearest key, or what its section knows."""
    section, _, key = path.rpartition(".")
    node = node_at(config, section)
    if isinstance(node, Mapping) and section and (close := closest(key, node)):
        return f"did you mean {section}.{close}?"
    if (straight := straightened(path, config)) is not None:
        return f"did you mean {straight}?"
    own = translated(path, value) if verb in VERBS_OF_EXPERIMENTS else None
    # A key of this very name is no other program's word, and lacks here for another reason.
    if own is not None and not own.startswith(f"{path}="):
        return f"in this program's words: type {own}"
    known = dict[str, Any]()
    if isinstance(node, Mapping) and "_target_" in node:
        # Only here is a class looked up, which loads torch.
        known = parameters_of(get_object(node["_target_"]))
    if key in known and key not in config:  # a key of the top level is handed on to classes
        return f"its class takes it all the same: type +{path}={value or 'VALUE'}"
    # The same key elsewhere, e.g. `recipe.source` of `source`; the shortest path first.
    elsewhere = sorted(
        (p for p in paths_of(config) if p.rpartition(".")[2] == key),
        key=lambda p: (p.count("."), p),
    )
    if elsewhere:
        return f"did you mean {', or '.join(elsewhere[:3])}?"
    if takes_any(known):
        return f"its class takes it all the same: type +{path}={value or 'VALUE'}"
    if close := closest(key, known):
        return f"did you mean {section}.{close}? Type +{section}.{close}={value or 'VALUE'}"
    if known:
        return f"known here: {', '.join(sorted(known))}"
    known_here = node if isinstance(node, Mapping) else config
    return f"known here: {', '.join(sorted(known_here))}"


def straightened(path: str, config: Mapping[str, Any]) -> str | None:
    """A path with each part replaced by the nearest one; None where a part has none near."""
    node: Any = config
    parts = []
    for part in path.split("."):
        if not isinstance(node, Mapping):
            return None
        name = part if part in node else closest(part, node)
        if name is None:
            return None
        parts.append(name)
        node = node[name]
    return ".".join(parts)


def paths_of(node: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of all keys below a node."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        below = f"{path}.{key}".lstrip(".")
        yield below
        yield from paths_of(value, below)
