"""A model in one file, as people share them, written as a pipeline of diffusers.

The file has weights in their authors' names; diffusers' own tables rename them. Configs, tokenizers
and whatever the file lacks come from a pipeline that lends them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmd2.io.hub import DTYPES, config_in, network_of
from dmd2.io.shown import in_one_line
from dmd2.io.tensors import first_difference, read_tensors
from dmd2.nets.files import save_pipeline
from dmd2.nets.pipeline_families import FAMILIES
from dmd2.nets.text.single_file import text_encoders

NETWORK = "model.diffusion_model."
"""What a network's names begin with where a file has other parts, too."""
VAES = ("first_stage_model.", "vae.")
"""What a VAE's names begin with there."""
TEXT_WIDTHS = {768: "Stable Diffusion 1's", 1024: "Stable Diffusion 2's", 2048: "SDXL's"}
"""Of the text that a U-Net reads."""


def convert(path: Path, configs: str, out: Path) -> str:
    """Write the file `path` as a pipeline in the folder `out`; returns a line on what it had.

    configs  A pipeline, a folder or a name on the hub: its configs and tokenizers are taken, and
             its weights of the parts that the file lacks.

    Raises ValueError where the file is of another layout or other sizes than the configs, and
    FileNotFoundError where there are no configs.
    """
    import diffusers  # noqa: PLC0415

    folder = network_of(configs)
    config = config_in(configs, f"{folder}/config.json")
    tensors = read_tensors(path)
    network = _network_tensors(tensors)
    _check_layout(path, network, configs, config)
    prefix = FAMILIES[config["_class_name"]].prefix
    prefixed = {f"{prefix}{name}": x for name, x in network.items()}
    parts = {folder: _converted(path, prefixed, configs, config, folder)}
    if config_of_vae := _vae_config(configs, tensors):
        parts["vae"] = _converted(path, tensors, configs, config_of_vae, "vae")
    parts |= text_encoders(path, tensors, configs)
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            configs, use_safetensors=True, **parts
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} has {', '.join(parts)}, and {configs} lacks another part of a pipeline: "
            f"{_words(error)}"
        ) from error
    save_pipeline(pipeline, out)
    return f"{', '.join(parts)} of {path}, the rest of {configs}"


def looks_like(names: Sequence[str]) -> str | None:
    """The class of diffusers' that a network with its authors' names is of; None: not known."""
    return next((kind for kind, family in FAMILIES.items() if family.layout in names), None)


def _network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file's network, by names without a prefix."""
    found = {
        name.removeprefix(NETWORK): x for name, x in tensors.items() if name.startswith(NETWORK)
    }
    return found or dict(tensors)


def _check_layout(
    path: Path, network: Mapping[str, Tensor], configs: str, config: Mapping[str, Any]
) -> None:
    """Raise ValueError where a file's network is of another class than the configs', reads text
    of another width, or is stored in a dtype that layers do not compute in.
    """
    kind, asked = looks_like(list(network)), config["_class_name"]
    remedy = "name a pipeline of the file's own kind: teacher.configs=DIR"
    if kind is None:
        known = [kind for kind, family in FAMILIES.items() if family.layout is not None]
        raise ValueError(
            f"{path} is no model in one file that is known here: its first name is "
            f"{min(network, default='none')!r}; known are {', '.join(known)} in their authors' "
            "names; a network in diffusers' names is teacher.weights=FILE"
        )
    if kind != asked:
        raise ValueError(f"{path} looks like a {kind}, and {configs} is of a {asked}; {remedy}")
    reads = [x.shape[1] for name, x in network.items() if name.endswith(".attn2.to_k.weight")]
    width = config.get("cross_attention_dim", 0)
    if reads and reads[0] != width:
        theirs, ours = (TEXT_WIDTHS.get(w, "another") for w in (reads[0], width))
        raise ValueError(
            f"{path} looks like {theirs} U-Net: it reads text of width {reads[0]}, and that of "
            f"{configs} reads {width}, {ours}; {remedy}"
        )
    for name, x in network.items():
        if x.is_floating_point() and x.dtype not in DTYPES.values():
            raise ValueError(
                f"{path} is stored in {str(x.dtype).removeprefix('torch.')} ({name}), which is too "
                f"coarse to train from; take the file in {' or '.join(DTYPES)}"
            )


def _converted(
    path: Path, tensors: Mapping[str, Tensor], configs: str, config: Mapping[str, Any], part: str
) -> Any:
    """A part of a pipeline with the file's weights, in diffusers' names; all of them, no other."""
    import diffusers  # noqa: PLC0415
    from diffusers.loaders import single_file_model  # noqa: PLC0415

    tables: Any = single_file_model.SINGLE_FILE_LOADABLE_CLASSES
    kind = getattr(diffusers, config["_class_name"])
    rename = tables[config["_class_name"]]["checkpoint_mapping_fn"]
    try:
        # What its tables do not find is a KeyError, or an empty chunk.
        renamed = dict(rename(checkpoint=dict(tensors), config=dict(config)))
        with torch.device("meta"):
            model = kind.from_config(config)
        if differs := first_difference(model.state_dict(), renamed):
            name, ours, theirs = differs
            raise ValueError(f"of {name} it has {theirs}, and wanted is {ours}")
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the {part} in {path} has other sizes than that of {configs}, or parts of it are "
            f"lacking: {_words(error)}; name a pipeline of the file's own kind: "
            "teacher.configs=DIR"
        ) from error
    model.load_state_dict(renamed, assign=True)
    return model.eval()


def _vae_config(configs: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The config of a VAE where the file has its weights; None where it has none."""
    if not any(name.startswith(VAES) for name in tensors):
        return None
    config = config_in(configs, "vae/config.json")
    return config if config["_class_name"] == "AutoencoderKL" else None


def _words(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return in_one_line(error)[:200]
