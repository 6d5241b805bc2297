"""Files of a published diffusers pipeline: in a local folder, or on the Hugging Face hub."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from dmd2.io.files import read_json
from dmd2.io.shown import in_one_line
from dmd2.io.tensors import shards_of

# From `prediction_type` of a diffusers scheduler to `Denoiser.prediction`.
PREDICTIONS: dict[str, Any] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}
PREDICTION_TYPES = {ours: theirs for theirs, ours in PREDICTIONS.items()}
# Only floats that layers compute in: in float8 or an integer type frozen weights would not run.
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
}
Kind = tuple[str, Callable[[Any], bool]]
"""What a key of a pipeline's file takes, in words, and whether a value fits."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none, as in JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1, and small enough for a size of memory."""
    return is_number(value) and isinstance(value, int) and 1 <= value <= MAX_COUNT


def list_of(kind: Kind) -> Kind:
    """A list of at least one value that fits."""
    return (
        f"a list, each {kind[0]}",
        lambda x: isinstance(x, list | tuple) and len(x) > 0 and all(map(kind[1], x)),
    )


def or_null(kind: Kind) -> Kind:
    """The same, and null as well."""
    return f"{kind[0]}, or null", lambda x: x is None or kind[1](x)


MAX_COUNT = 1_000_000
NUMBER: Kind = ("a finite number", is_number)
POSITIVE: Kind = ("a finite number above 0", lambda x: is_number(x) and x > 0)
SHARE: Kind = ("a number of at least 0 and below 1", lambda x: is_number(x) and 0 <= x < 1)
COUNT: Kind = (f"a whole number from 1 to {MAX_COUNT:,}", is_count)
SWITCH: Kind = ("true or false", lambda x: isinstance(x, bool))
WORD: Kind = ("text", lambda x: isinstance(x, str))


def check_keys(what: str, config: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError for the first key of a file that is there and not of its kind.

    what  What the file describes, e.g. "the VAE of DIR".
    """
    for key, (words, fits) in kinds.items():
        if key in config and not fits(config[key]):
            raise ValueError(
                f"{what} has {key}={config[key]!r:.60}, expected {words}; mend the file"
            )


def file_of(source: str | Path, name: str) -> Path:
    """A file of a pipeline, e.g. "unet/config.json", as a local path.

    Where `source` is no folder it is a name on the hub, whose file is downloaded once, into the
    hub's own cache. Raises FileNotFoundError where the folder lacks the file or the hub does not
    give it, and ImportError without the extra `text`.
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
            "published pipelines need diffusers; in the checkout type: "
            "make install EXTRAS=dev,text, or pip install '.[text]'"
        ) from error
    try:
        return Path(hf_hub_download(str(source), name))
    # Offline, unknown, not permitted, no valid name: each has an exception class of its own, and
    # not all share a base class.
    except Exception as error:
        raise FileNotFoundError(
            f"there is no pipeline at {source}: no such folder, and the hub did not give {name} "
            f"({type(error).__name__}); name the folder that holds it, e.g. teacher.source=DIR"
        ) from error


def network_of(source: str | Path) -> str:
    """The folder of a pipeline's denoiser: "unet" or "transformer".

    Raises FileNotFoundError where there is neither.
    """
    try:
        file_of(source, "unet/config.json")
    except FileNotFoundError as error:
        try:
            file_of(source, "transformer/config.json")
        except FileNotFoundError:
            raise error from None
        return "transformer"
    return "unet"


def weights_of(source: str | Path, variant: str | None) -> Path:
    """The weights of a pipeline's denoiser: one file, or the index of several, which are then
    there.

    variant  Another storage of them, e.g. "fp16".

    Raises FileNotFoundError where one is lacking, e.g. of a download that was cut off.
    """
    stem = f"{network_of(source)}/diffusion_pytorch_model"
    try:
        return file_of(source, f"{stem}.{f'{variant}.' if variant else ''}safetensors")
    except FileNotFoundError as error:
        try:  # large models are cut into shards, and an index says which tensor lies in which
            end = f".{variant}.json" if variant else ".json"
            index = file_of(source, f"{stem}.safetensors.index{end}")
        except FileNotFoundError:
            raise error from None  # the message is of the file that most pipelines have
        for name in shards_of(index):
            file_of(source, f"{stem.partition('/')[0]}/{name}")
        return index


def dtype_of(name: str) -> torch.dtype:
    """The dtype in which frozen weights are held, by name, e.g. "bfloat16".

    Raises ValueError for any but float32, bfloat16 and float16.
    """
    if name not in DTYPES:
        raise ValueError(f"a dtype of weights must be {', '.join(DTYPES)}, got {name}")
    return DTYPES[name]


def variant_of(source: str | Path, weights: str, variant: str | None) -> str | None:
    """`variant` where a part of a pipeline is stored in it, else None: the plain file.

    weights  The part, e.g. "vae/diffusion_pytorch_model". A warning names one without the variant.
    """
    if variant is None:
        return None
    # One file, or the index of several.
    for name in (f"{weights}.{variant}.safetensors", f"{weights}.safetensors.index.{variant}.json"):
        with suppress(FileNotFoundError):
            file_of(source, name)
            return variant
    # A warning and no error: many pipelines have the variant for the U-Net alone.
    warnings.warn(
        f"{source} has no {weights}.{variant}.safetensors; the plain file is read", stacklevel=2
    )
    return None


@contextmanager
def named_in_errors(source: str | Path, part: str) -> Iterator[None]:
    """Inside, what a library raises at files of no sense becomes a ValueError that names the part.

    part  Of a pipeline, e.g. "unet".
    """
    try:
        yield
    except (OSError, ImportError, MemoryError):  # with names of files of their own
        raise
    except Exception as error:  # configs are checked in many ways, or not at all
        words = in_one_line(error)
        raise ValueError(
            f"the {part} of {source} cannot be built as its files describe it: {words:.300}"
        ) from error


def config_in(source: str | Path, name: str) -> dict[str, Any]:
    """A JSON file of a pipeline, e.g. "unet/config.json".

    Raises FileNotFoundError where there is none, ValueError where it holds no mapping.
    """
    path = file_of(source, name)
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no mapping of names to values")
    return content
