"""The files of a published pipeline in diffusers' layout: of a folder, or of a name on the hub."""

import warnings
from pathlib import Path
from typing import Any

import torch

from dmd2.io.files import read_json

PREDICTIONS: dict[str, Any] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""Our names of what diffusers' schedulers call `prediction_type`."""
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
}


def file_of(source: str | Path, name: str) -> Path:
    """A file of a pipeline, e.g. "unet/config.json"; one on the hub is fetched once, into the hub's
    own cache.

    Raises FileNotFoundError where the folder lacks it, or the hub cannot give it, ImportError
    without dmd2[text].
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}, so it is no pipeline as diffusers saves them"
            )
        return folder / name
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "published pipelines need diffusers; type: pip install 'dmd2[text]'"
        ) from error
    try:
        return Path(hf_hub_download(str(source), name))
    except (
        Exception
    ) as error:  # offline, unknown, refused or no name at all: each has a class of its own there
        raise FileNotFoundError(
            f"there is no pipeline at {source}: no such folder, and the hub did not give {name} "
            f"({type(error).__name__}); name the folder that holds it, e.g. teacher.source=DIR"
        ) from error


def weights_of(source: str | Path, variant: str | None) -> Path:
    """The file of a pipeline's U-Net; `variant` names another storage of it, e.g. "fp16"."""
    return file_of(
        source, f"unet/diffusion_pytorch_model.{f'{variant}.' if variant else ''}safetensors"
    )


def dtype_of(name: str) -> torch.dtype:
    """What frozen weights are held as; raises ValueError for any but the floats that networks
    compute in.
    """
    if name not in DTYPES:
        raise ValueError(f"a dtype of weights must be {', '.join(DTYPES)}, got {name}")
    return DTYPES[name]


def variant_of(source: str | Path, weights: str, variant: str | None) -> str | None:
    """The storage to read of a frozen part, e.g. weights="vae/diffusion_pytorch_model": `variant`,
    if it has that.

    None is the plain one; a part without the variant falls back on that, and a warning names it.
    """
    if variant is None:
        return None
    try:
        file_of(source, f"{weights}.{variant}.safetensors")
    except FileNotFoundError:
        warnings.warn(
            f"{source} has no {weights}.{variant}.safetensors; the plain file is read", stacklevel=2
        )
        return None
    return variant


def check_prediction(source: str | Path, prediction: str) -> None:
    """Raise ValueError where a pipeline's scheduler says that its network predicts something
    else.
    """
    config = read_json(file_of(source, "scheduler/scheduler_config.json"))
    said = config.get("prediction_type", "epsilon")  # older files do not say
    if PREDICTIONS.get(said) != prediction:
        raise ValueError(
            f"{source} predicts {said}, and this configuration has "
            f"teacher.denoiser.prediction={prediction}; "
            "choose the teacher that it is of, or teacher=pipeline, which asks it"
        )
