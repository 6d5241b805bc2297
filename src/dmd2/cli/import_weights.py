"""Turn published weights into a safetensors file, without running any code that comes with them.

usage: dmd2 import source=FILE out=FILE.safetensors

  source  A network of EDM's (edm-*.pkl), a U-Net of diffusers
          (diffusion_pytorch_model.safetensors), or a checkpoint
          of the DMD2 authors (pytorch_model.bin, the generator; pytorch_model_1.bin, the critic
          with its head).
  out     The file to write. A teacher goes where its configuration looks for it (the error of `dmd2
          train` says
          where), a generator starts a run with weights=FILE and is scored with `dmd2 evaluate
          run=DIR weights=FILE`.
"""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from dmd2.cli.verbs import verb_of_options
from dmd2.io.files import sha256
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.weights.authors import read_checkpoint, student
from dmd2.weights.edm import network
from dmd2.weights.pickles import read_pickle


@verb_of_options("import")
def main(options: DictConfig) -> None:
    """Read, check, and only then write."""
    import_weights(Path(options.source), Path(options.out))


def import_weights(source: Path, out: Path) -> None:
    """Write `source`, in any of the formats, as `out`."""
    if out.suffix != ".safetensors":
        raise ValueError(
            f"out must end in .safetensors, got {out}; type out={out.with_suffix('.safetensors')}"
        )
    metadata, left_out = {"source": source.name}, list[str]()
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    metadata["sha256"] = sha256(source)
    with source.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    if source.suffix == ".safetensors":
        tensors, kind, left_out = student(read_tensors(source))
    elif is_archive:
        tensors, kind, left_out = student(read_checkpoint(source))
    else:
        tensors, architecture = network(read_pickle(source))
        metadata["architecture"], kind = json.dumps(architecture), architecture["model"]["class"]
    check_size(tensors, source)
    apart = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    save_tensors(apart, out, metadata)  # which takes no tensors that share memory
    num_parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f"{out}: a {kind} of {len(tensors)} tensors, {num_parameters:,} numbers")
    if left_out:
        print(
            f"left out: {len(left_out)} tensors, "
            f"{', '.join(sorted({name.split('.')[0] for name in left_out}))}"
        )


def check_size(tensors: dict[str, Tensor], source: Path) -> None:
    """Raise ValueError where tensors that share their memory would be written out to more than came
    in.
    """
    if sum(tensor.nbytes for tensor in tensors.values()) > source.stat().st_size:
        raise ValueError(
            f"{source} is refused: its tensors overlap, and would fill more than the file"
        )
