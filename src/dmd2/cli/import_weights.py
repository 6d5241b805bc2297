"""Turn published weights into a safetensors file, without running any code that comes with them.

usage: dmd2 import source=FILE out=FILE.safetensors

  source  One of these:
          edm-*.pkl                                a network of EDM's
          diffusion_pytorch_model.safetensors      a U-Net of diffusers
          pytorch_model.bin                        a generator of the DMD2 authors
          pytorch_model_1.bin                      their critic with its discriminator
  out     The file to write. A teacher goes where its configuration looks for it; the error of
          `dmd2 train` names the place. A generator starts a run with weights=FILE, and is scored
          with `dmd2 evaluate run=DIR weights=FILE`.
"""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from dmd2.io.files import locked
from dmd2.io.progress import bytes_bar, hashed
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.weights.authors import read_checkpoint, student
from dmd2.weights.edm import network
from dmd2.weights.pickles import read_pickle


def main(options: DictConfig) -> None:
    """Convert the file that the options name."""
    import_weights(Path(options.source), Path(options.out))


def import_weights(source: Path, out: Path) -> None:
    """Write `source`, in any of the formats, as the safetensors file `out`.

    Nothing is written where reading or checking fails. Raises ValueError for a source in no known
    format or an `out` of another suffix, and FileNotFoundError where there is no source.
    """
    if out.suffix != ".safetensors":
        raise ValueError(
            f"out must end in .safetensors, got {out}; type out={out.with_suffix('.safetensors')}"
        )
    metadata, left_out = {"source": source.name}, list[str]()
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    # With the hash in the file's metadata anybody can tell which published file it came from.
    metadata["sha256"] = hashed(source)
    # By content, not by suffix: torch.save writes a zip archive, EDM's files are bare pickles.
    with source.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    if source.suffix == ".safetensors":
        tensors, kind, left_out = _student(read_tensors(source), source)
    elif is_archive:
        tensors, kind, left_out = _student(read_checkpoint(source), source)
    else:
        tensors, architecture = network(read_pickle(source))
        metadata["architecture"], kind = json.dumps(architecture), architecture["model"]["class"]
    check_size(tensors, source)
    apart = dict[str, Tensor]()
    # Only here the authors' files are read, which are mapped.
    with bytes_bar(f"reading {source.name}", sum(x.nbytes for x in tensors.values())) as bar:
        for name, tensor in tensors.items():
            # safetensors refuses tensors that share memory, and views of another layout.
            apart[name] = tensor.clone(memory_format=torch.contiguous_format)
            bar.update(tensor.nbytes)
    with locked(out):  # so that what a kill left of it is nobody's, and is removed
        save_tensors(apart, out, metadata)
    num_parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f"{out}: a {kind} of {len(tensors)} tensors, {num_parameters:,} numbers")
    # E.g. the frozen teacher, which the authors' critic checkpoint holds as well.
    if left_out:
        print(
            f"left out: {len(left_out)} tensors, "
            f"{', '.join(sorted({name.split('.')[0] for name in left_out}))}"
        )


def _student(tensors: dict[str, Tensor], source: Path) -> tuple[dict[str, Tensor], str, list[str]]:
    """As `student`, with the file in its errors."""
    try:
        return student(tensors)
    except ValueError as error:
        raise ValueError(
            f"{source} cannot be imported: {error}; a file of a run here is read as it is, e.g. by "
            "weights=FILE"
        ) from error


def check_size(tensors: dict[str, Tensor], source: Path) -> None:
    """Raise ValueError where overlapping tensors would take more bytes than the file has."""
    # Strides in a pickle can make a terabyte of one number, which would fill the disk.
    if sum(tensor.nbytes for tensor in tensors.values()) > source.stat().st_size:
        raise ValueError(
            f"{source} is refused: its tensors overlap, and would fill more than the file"
        )
