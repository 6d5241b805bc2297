"""Checkpoints of DMD2's authors: pytorch_model.bin (generator), pytorch_model_1.bin (fake score).

They are state dicts under changing prefixes. Two names are in every network of theirs: EDM's
`map_layer0`, or `time_embedding` of a diffusers U-Net. The prefix before them tells the network.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmd2.io.files import refused
from dmd2.io.tensors import reason_of

ANCHORS = ("map_layer0.weight", "time_embedding.linear_1.weight")
HEAD = "cls_pred_branch."  # the authors' name of the discriminator


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that `torch.save` wrote; raises what the next two raise."""
    return named_tensors(path, read_saved(path))


def read_saved(path: Path) -> Any:
    """What `torch.save` wrote, its tensors memory-mapped; only plain values are unpickled.

    Raises ValueError where the file is damaged, holds anything else, or would unpack to more than
    its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing: an archive that unpacks to more is a zip bomb.
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than it is")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a hostile file can provoke any
        raise refused(path, reason_of(error)) from error


def named_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """`content`, found in a file, where it is a state dict; raises ValueError where it is none."""
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise ValueError(f"{path} is no state dict: not all it holds are named tensors")
    return content


def renamed(
    path: Path, name: str, starts: Mapping[str, str], layers: Mapping[str, str], whose: str
) -> tuple[str, str]:
    """The first of `starts` that begins a name, and the name with what it and `layers` say instead.

    Raises ValueError where none begins it: the file `path` is no `whose`.
    """
    start = next((start for start in starts if name.startswith(start)), None)
    if start is None:
        raise ValueError(f"{path} is no {whose}: it has a weight {name[:50]!r}")
    ours = starts[start] + name.removeprefix(start)
    for old, new in layers.items():
        ours = ours.replace(old, new)
    return start, ours


def student(content: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """The generator of a state dict, or else its critic: (tensors, kind, names left out).

    The tensors have our names: those of a generator load into a `Denoiser`, those of a critic,
    with its discriminator if there is one, into a `Critic`. `kind` is "generator" or "critic".
    Raises ValueError where there is neither, or more than one of a kind.
    """
    # The dots make a name match at a boundary: "x.map_layer0.weight", not "xmap_layer0.weight".
    prefixes = {n.removesuffix(a) for n in content for a in ANCHORS if f".{n}".endswith(f".{a}")}
    critics = [prefix for prefix in prefixes if "fake_unet." in prefix]
    # A generator's prefix varies with the training script ("", "module.", "feedforward_model."),
    # so it is any that is not one of the two networks of the guidance model.
    generators = [
        prefix for prefix in prefixes if not {"fake_unet", "real_unet"} & set(prefix.split("."))
    ]
    for found, kind, ours in (
        (generators, "generator", "model."),
        (critics, "critic", "denoiser.model."),
    ):
        if len(found) == 1:
            names = {
                name: ours + name.removeprefix(found[0])
                for name in content
                if name.startswith(found[0])
            }
            if kind == "critic":
                # Their discriminator is beside the U-Net, not inside it, and is a single head.
                heads = {name: name.partition(HEAD)[2] for name in content if HEAD in name}
                names |= {
                    name: f"discriminator.heads.0.layers.{rest}" for name, rest in heads.items()
                }
            return (
                {names[name]: content[name] for name in names},
                kind,
                sorted(set(content) - set(names)),
            )
    roots = sorted({name.split(".")[0][:50] for name in content})
    raise ValueError(
        f"it holds no one generator or critic of a known network; its names begin with {roots[:10]}"
    )
