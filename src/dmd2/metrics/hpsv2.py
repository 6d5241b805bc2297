"""The CLIP of HPSv2.1 (Wu et al. 2023, arXiv:2306.09341), once rewritten for transformers."""

from functools import partial
from pathlib import Path

import torch

from dmd2.io.hub import named_in_errors
from dmd2.io.pretrained import read_tokenizer
from dmd2.io.tensors import first_difference, save_tensors
from dmd2.metrics.download import converted
from dmd2.weights.open_clip import read_open_clip

URL = "https://huggingface.co/xswu/HPSv2/resolve/main/HPS_v2.1_compressed.pt"


def hpsv2_folder(
    folder: str | Path, clip: str, fetch: bool = True, sha256: str | None = None
) -> str:
    """A folder inside `folder` that `ClipImages` and `HPSv2` read; made where there is none.

    folder  Where HPS_v2.1_compressed.pt lies, or is downloaded to if `fetch`: 1.97 GB, and as much
            for what is made of it.
    clip    The CLIP that it was fine-tuned from, a folder or a name on the hub: config.json and the
            tokenizer are read, and no weights.
    sha256  Of the file; its authors publish none, and None checks nothing.

    Needs the package transformers. Raises FileNotFoundError where something is missing, ValueError
    where the file is of another network.
    """
    return converted(folder, "HPS_v2.1", URL, sha256, fetch, partial(_convert, clip))


def _convert(clip: str, file: Path, folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer  # noqa: PLC0415

    tensors = read_open_clip(file)
    try:
        tokenizer = read_tokenizer(CLIPTokenizer, clip)
        with named_in_errors(clip, "CLIP"), torch.device("meta"):
            config = CLIPConfig.from_pretrained(clip)
            network = CLIPModel(config).state_dict()
    except OSError as error:
        raise FileNotFoundError(
            f"there is no CLIP at {clip}: no folder with config.json and a tokenizer, and the hub "
            "did not give them; type metric.suite.detectors.hpsv2.source.clip=DIR"
        ) from error
    if differs := first_difference(network, tensors):
        raise ValueError(
            f"{file} is of another network than {clip}, whose {differs[0]} differs; type "
            "metric.suite.detectors.hpsv2.source.clip=DIR"
        )
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    save_tensors(tensors, folder / "model.safetensors")
