"""The CLIP of HPSv2.1 (Wu et al. 2023, arXiv:2306.09341), once rewritten for transformers."""

from pathlib import Path

import torch

from dmd2.io.files import locked
from dmd2.io.hub import named_in_errors
from dmd2.io.pretrained import read_tokenizer
from dmd2.io.replace import replacing
from dmd2.io.tensors import save_tensors
from dmd2.metrics.download import fetched
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
    made = Path(folder) / "HPS_v2.1"
    with locked(made):
        if not made.exists():
            file = fetched(folder, URL, sha256, fetch)
            tensors = read_open_clip(file)
            with replacing(made) as half:
                shapes = _save_architecture(clip, half)
                if wrong := shapes.items() ^ {(name, x.shape) for name, x in tensors.items()}:
                    raise ValueError(
                        f"{file} is of another network than {clip}, whose {min(wrong)[0]} differs; "
                        "type metric.suite.detectors.hpsv2.source.clip=DIR"
                    )
                save_tensors(tensors, half / "model.safetensors")
    return str(made)


def _save_architecture(clip: str, folder: Path) -> dict[str, torch.Size]:
    """Config and tokenizer of a CLIP into a folder; the shapes of its tensors by name."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer  # noqa: PLC0415

    try:
        with named_in_errors(clip, "CLIP"), torch.device("meta"):
            read_tokenizer(CLIPTokenizer, clip).save_pretrained(folder)
            config = CLIPConfig.from_pretrained(clip)
            config.save_pretrained(folder)
            return {name: tensor.shape for name, tensor in CLIPModel(config).state_dict().items()}
    except OSError as error:
        raise FileNotFoundError(
            f"there is no CLIP at {clip}: no folder with config.json and a tokenizer, and the hub "
            "did not give them; type metric.suite.detectors.hpsv2.source.clip=DIR"
        ) from error
