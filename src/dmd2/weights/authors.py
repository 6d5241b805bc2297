"""Checkpoints of DMD2's authors (pytorch_model.bin, pytorch_model_1.bin): state dicts of a network,
and of the head.

What is what is read off the names: a network is where EDM's `map_layer0` or a diffusers U-Net's
`time_embedding` is, and the words before it say whose.
"""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

ANCHORS = ("map_layer0.weight", "time_embedding.linear_1.weight")
HEAD = "cls_pred_branch."


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote, mapped from it; nothing but tensors is read.

    Raises ValueError where it is damaged, holds anything else, or would unpack to more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing, so that an archive that unpacks to more was made to do
            # harm.
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than it is")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a hostile file can provoke any
        raise ValueError(f"{path} is refused, and nothing in it was run: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise ValueError(f"{path} is no state dict: not all it holds are named tensors")
    return content


def student(content: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors of a generator, or else of a critic, in our names; which of the two; the names
    left out.

    A generator's tensors load into a `Denoiser`, a critic's, with its head if it has one, into a
    `Critic`.
    """
    prefixes = {n.removesuffix(a) for n in content for a in ANCHORS if f".{n}".endswith(f".{a}")}
    critics = [prefix for prefix in prefixes if "fake_unet." in prefix]
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
